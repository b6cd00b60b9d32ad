"""What OpenCode asks beside ACP: read from its server's lists, answered by one request each, hidden as a tool, never lost."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from executor.adapters.base import STDERR, STDOUT, Call, CloseInput, Emit, Send, StartRequest, Step, call_stream
from executor.adapters.opencode.adapter import OpenCodeAdapter
from shared.contracts.events import (
    AttemptOutcome,
    Diagnostic,
    InteractionRequested,
    InteractionResolved,
    MessageCompleted,
    Said,
    ToolCompleted,
    ToolStarted,
)
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode, RunyardError

TABS = {"question": "Tabs or spaces?", "header": "Indent", "options": [{"label": "Tabs", "description": "Use tabs"}]}
WIDTH = {"question": "How wide?", "header": "Width", "options": [{"label": "80"}, {"label": "120"}]}
QUESTION = {"id": "que_1", "sessionID": "ses_1", "questions": [TABS], "tool": {"messageID": "m", "callID": "call_1"}}
OF_A_HELPER = {
    "id": "per_1", "sessionID": "ses_2", "permission": "bash", "patterns": ["ls"], "metadata": {"command": "ls"},
    "always": ["ls *"], "tool": {"messageID": "m", "callID": "call_9"},
}  # fmt: skip


class Peer:
    """A conversation, and OpenCode's side of it played by the test."""

    def __init__(self, **more: Any) -> None:
        fields: dict[str, Any] = {
            "run_id": "run_1", "attempt": 2, "executable": "/engines/opencode", "home": "/home/agent", "workspace": "/work space",
            "messages": [Message(content="hi")], "credential_env": {"OPENAI_API_KEY": "sk-o"}, "door_key": "the-key",
        }  # fmt: skip
        self.conversation = OpenCodeAdapter().start(StartRequest(**(fields | more)))
        self.steps: list[Step] = self.conversation.opened()
        self.answers("initialize")
        self.answers("session/new", {"sessionId": "ses_1"})
        self.answers("session/set_mode")

    def says(self, **message: Any) -> list[Step]:
        return self.did(self.conversation.feed(STDOUT, json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n"))

    def answers(self, method: str, result: Any = None) -> list[Step]:
        number = [each["id"] for each in self.sent if each.get("method") == method][-1]
        return self.says(id=number, result=result or {})

    def tool(self, status: str, id: str = "call_1", title: str = "question", **more: Any) -> list[Step]:
        update = {"sessionUpdate": "tool_call_update", "toolCallId": id, "status": status, "title": title, **more}
        return self.says(method="session/update", params={"sessionId": "ses_1", "update": update})

    def logs(self, said: str) -> list[Step]:
        return self.did(self.conversation.feed(STDERR, f"timestamp=2026-11-21T09:25:34Z level=INFO run=1 {said}\n".encode()))

    def asks(self, *listed: Any, board: str = "que") -> list[Step]:
        """Its log says so, and its server, asked, has these in its list."""
        self.logs(f"message=asking id={board}_1 questions=1")
        return self.serves(list(listed))

    def serves(self, body: Any, status: int = 200) -> list[Step]:
        """The answer to our newest call."""
        stream = call_stream(self.calls[-1].call_id)
        steps = self.conversation.feed(stream, json.dumps({"status": status}).encode() + b"\n")
        steps += self.conversation.feed(stream, json.dumps(body).encode())
        return self.did([*steps, *self.conversation.end_of(stream)])

    def replied(self, question_id: str, **reply: Any) -> list[Step]:
        return self.did(self.conversation.answer(question_id, Reply(**reply)))

    def did(self, steps: list[Step]) -> list[Step]:
        self.steps += steps
        return steps

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(step.data) for step in self.steps if isinstance(step, Send)]

    @property
    def calls(self) -> list[Call]:
        return [step for step in self.steps if isinstance(step, Call)]

    @property
    def posted(self) -> list[tuple[str, Any]]:
        posts = [call for call in self.calls if call.method == "POST"]
        return [(call.path.partition("?")[0], json.loads(call.body) if call.body else None) for call in posts]

    def told(self, *kinds: type[Any]) -> list[Any]:
        return [step.payload for step in self.steps if isinstance(step, Emit) and isinstance(step.payload, kinds)]

    def prompts(self) -> list[str]:
        return [each["params"]["prompt"][0]["text"] for each in self.sent if each.get("method") == "session/prompt"]


def test_a_question_is_read_from_its_server_and_answered_there() -> None:
    peer = Peer()
    peer.logs("message=asking id=que_1 questions=1")
    [call] = peer.calls
    assert (call.method, call.path, call.body) == ("GET", "/question?directory=/work%20space", None)
    assert b64decode(call.headers["authorization"].removeprefix("Basic ")) == b"opencode:the-key"
    peer.serves([QUESTION])
    [asked] = peer.told(InteractionRequested)
    assert (asked.question_id, asked.type, asked.prompt) == ("s2-1", InteractionType.QUESTION, "Tabs or spaces?")
    assert [(option.label, option.description) for option in asked.options] == [("Tabs", "Use tabs")]
    peer.replied("s2-1", answer="Tabs")
    assert peer.posted == [("/question/que_1/reply", {"answers": [["Tabs"]]})]
    assert peer.serves(True) == []


@pytest.mark.parametrize(("answer", "answers"), [
    ("Tabs", [["Tabs"], []]),
    (["Tabs", "80"], [["Tabs"], ["80"]]),
    ({"Indent": "Tabs", "1": ["80", "120"]}, [["Tabs"], ["80", "120"]]),
    ({"How wide?": 80}, [[], ["80"]]),
    ({}, [[], []]),
])  # fmt: skip
def test_several_questions_are_one_and_are_answered_by_name_position_or_order(answer: Any, answers: list[list[str]]) -> None:
    peer = Peer()
    peer.asks(QUESTION | {"questions": [TABS, WIDTH]})
    [asked] = peer.told(InteractionRequested)
    assert asked.prompt == "Tabs or spaces?\nHow wide?"
    assert list(asked.schema_["properties"]) == asked.schema_["required"] == ["0", "1"]
    assert asked.schema_["properties"]["1"]["examples"] == ["80", "120"]
    peer.replied("s2-1", answer=answer)
    assert peer.posted == [("/question/que_1/reply", {"answers": answers})]


@pytest.mark.parametrize(("says", "type"), [({"multiple": True}, ["string", "array"]), ({"multiple": False}, None), ({}, None)])
def test_one_question_takes_a_list_whole_and_says_so_where_several_are_meant(says: dict[str, bool], type: Any) -> None:
    peer = Peer()
    peer.asks(QUESTION | {"questions": [TABS | says]})
    assert (peer.told(InteractionRequested)[0].schema_ or {}).get("type") == type
    peer.replied("s2-1", answer=["Tabs", "both"])
    assert peer.posted == [("/question/que_1/reply", {"answers": [["Tabs", "both"]]})]


@pytest.mark.parametrize(("reason", "told"), [
    (None, "The user does not want to answer that. Go on without it."),
    ("ask me later", "The user does not want to answer that. Go on without it. They say: ask me later"),
])  # fmt: skip
def test_a_declined_question_ends_its_turn_so_the_model_is_told_by_the_next_prompt(reason: str | None, told: str) -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.replied("s2-1", decision=Decision.DECLINE, message=reason)
    assert peer.posted == [("/question/que_1/reject", None)]
    peer.tool("failed")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.prompts() == ["hi", told]
    assert peer.told(ToolStarted, ToolCompleted, InteractionResolved) == []


def test_declining_and_stopping_ends_the_run() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.replied("s2-1", decision=Decision.DECLINE_AND_STOP)
    assert [path for path, _ in peer.posted] == ["/question/que_1/reject"]
    assert peer.sent[-1]["method"] == "session/cancel"
    steps = peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert isinstance(steps[-1], CloseInput)
    assert peer.conversation.ended(0).outcome is AttemptOutcome.CANCELED


def test_a_question_is_no_tool() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.tool("in_progress", rawInput={"questions": [TABS]})
    peer.replied("s2-1", answer="Tabs")
    peer.serves(True)
    peer.tool("completed", title="Asked 1 question")
    assert peer.told(ToolStarted, ToolCompleted, InteractionResolved) == []
    peer.tool("completed", id="call_2", title="grep")
    assert [each.name for each in peer.told(ToolStarted, ToolCompleted)] == ["grep", "grep"]


def test_a_question_that_could_not_be_asked_is_a_tool_that_failed() -> None:
    peer = Peer()
    peer.tool("in_progress", rawInput={"questions": "what?"})
    peer.tool("failed")
    assert [type(each) for each in peer.told(ToolStarted, ToolCompleted)] == [ToolStarted, ToolCompleted]


def test_what_the_engine_asked_twice_about_is_asked_once_and_what_came_meanwhile_is_not_missed() -> None:
    peer = Peer()
    peer.logs("message=asking id=que_1 questions=1")
    peer.logs("message=asking id=que_2 questions=1")
    assert len(peer.calls) == 1
    peer.serves([QUESTION])
    assert len(peer.calls) == 2
    peer.serves([QUESTION, QUESTION | {"id": "que_2"}])
    assert [each.question_id for each in peer.told(InteractionRequested)] == ["s2-1", "s2-2"]
    assert len(peer.calls) == 2


def test_a_question_the_engine_gave_up_is_withdrawn() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.tool("failed", id="call_2", title="grep")
    peer.serves([QUESTION])
    assert peer.told(InteractionResolved) == []
    peer.tool("failed")
    peer.serves([])
    assert [(each.question_id, each.how) for each in peer.told(InteractionResolved)] == [("s2-1", "withdrawn")]
    with pytest.raises(RunyardError) as refused:
        peer.replied("s2-1", answer="Tabs")
    assert refused.value.code is ErrorCode.CONFLICT


def test_after_a_stop_nothing_is_asked_and_nothing_is_open() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.logs("message=asking id=que_2 questions=1")
    peer.did(peer.conversation.interrupt())
    peer.serves([QUESTION | {"id": "que_2"}])
    assert len(peer.told(InteractionRequested)) == 1
    with pytest.raises(RunyardError):
        peer.replied("s2-1", answer="Tabs")
    assert peer.told(InteractionResolved) == []  # the runner's to say


# ---- what its sub-agents ask leave for ----


def test_a_permission_of_the_session_itself_is_left_to_acp() -> None:
    peer = Peer()
    peer.asks(OF_A_HELPER | {"sessionID": "ses_1"}, board="per")
    assert [call.path.partition("?")[0] for call in peer.calls] == ["/permission"]
    assert peer.told(InteractionRequested) == []


@pytest.mark.parametrize(("reply", "said"), [
    ({"decision": Decision.ACCEPT}, {"reply": "once"}),
    ({"decision": Decision.ACCEPT_FOR_SESSION}, {"reply": "always"}),
    ({"decision": Decision.DECLINE},
     {"reply": "reject", "message": "The user declined that tool call. Go on without it."}),
    ({"decision": Decision.DECLINE, "message": "no"},
     {"reply": "reject", "message": "The user declined that tool call. Go on without it. They say: no"}),
    ({"decision": Decision.DECLINE_AND_STOP}, {"reply": "reject"}),
])  # fmt: skip
def test_what_a_sub_agent_asks_leave_for_reaches_a_person(reply: dict[str, Any], said: dict[str, Any]) -> None:
    peer = Peer()
    peer.asks(OF_A_HELPER, board="per")
    [asked] = peer.told(InteractionRequested)
    assert (asked.type, asked.prompt) == (InteractionType.PERMISSION, "May a sub-agent use shell: ls?")
    assert (asked.tool.name, asked.tool.input) == ("shell", {"command": "ls"})
    peer.replied(asked.question_id, **reply)
    assert peer.posted == [("/permission/per_1/reply", said)]


@pytest.mark.parametrize(("mode", "reply"), [
    (EngineMode.PLAN, "reject"), (EngineMode.READ_ONLY, "reject"), (EngineMode.FULL, "once"),
])  # fmt: skip
def test_where_nobody_is_asked_the_mode_decides_what_a_sub_agent_may(mode: EngineMode, reply: str) -> None:
    peer = Peer(engine_mode=mode)
    peer.asks(OF_A_HELPER, board="per")
    assert peer.told(InteractionRequested) == []
    assert [body["reply"] for _, body in peer.posted] == [reply]


# ---- what its sub-agents said and did ----

TASK = '<task id="ses_2" state="completed">\n<task_result>\nDone.\n</task_result>\n</task>'
SESSION = [
    {"info": {"role": "user"}, "parts": [{"id": "prt_0", "type": "text", "text": "look"}]},
    {"info": {"role": "assistant"}, "parts": [
        {"id": "prt_1", "type": "step-start"},
        {"id": "prt_2", "type": "reasoning", "text": "First I look."},
        {"id": "prt_3", "type": "tool", "callID": "call_9", "tool": "bash", "state": {
            "status": "completed", "input": {"command": "ls"}, "output": "made", "metadata": {"exit": 0}}},
        {"id": "prt_4", "type": "tool", "callID": "call_10", "tool": "question", "state": {"status": "completed"}},
        {"id": "prt_5", "type": "tool", "callID": "call_11", "tool": "edit", "state": {"status": "error", "error": "no"}},
        {"id": "prt_6", "type": "text", "text": "Done."},
    ]},
]  # fmt: skip


def ends_task(peer: Peer, id: str = "call_1", output: str = TASK) -> list[Step]:
    peer.tool("in_progress", id=id, title="task")
    return peer.tool("completed", id=id, title="look", rawOutput={"output": output})


def test_what_a_sub_agent_said_and_did_is_told_as_its_own() -> None:
    peer = Peer()
    ends_task(peer)
    assert peer.calls[-1].path == "/session/ses_2/message?directory=/work%20space"
    told = [step.payload for step in peer.serves(SESSION) if isinstance(step, Emit)]
    assert {each.parent_tool_id for each in told if isinstance(each, Said)} == {"call_1"}
    assert [each.KIND.value for each in told] == [
        "reasoning.completed", "tool.started", "tool.completed", "tool.started", "tool.completed", "message.completed",
    ]  # fmt: skip
    ended = [each for each in told if isinstance(each, ToolCompleted)]
    assert [(each.name, each.status, each.output, each.exit_code) for each in ended] == [
        ("shell", "completed", "made", 0), ("edit", "failed", "no", None),
    ]  # fmt: skip


def test_a_task_that_goes_on_tells_nothing_twice() -> None:
    peer = Peer()
    ends_task(peer)
    peer.serves(SESSION)
    ends_task(peer, id="call_2")
    told = peer.serves([*SESSION, {"info": {"role": "assistant"}, "parts": [{"id": "prt_7", "type": "text", "text": "More."}]}])
    more = [step.payload for step in told if isinstance(step, Emit)]
    assert more == [MessageCompleted(message_id="prt_7", text="More.", parent_tool_id="call_2")]


def test_the_run_ends_when_every_sub_agent_is_read_and_its_words_are_never_the_answer() -> None:
    peer = Peer()
    ends_task(peer)
    peer.says(method="session/update", params={"sessionId": "ses_1", "update": {
        "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "The answer."}}})  # fmt: skip
    assert CloseInput() not in peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.serves(SESSION)[-1] == CloseInput()
    assert peer.conversation.ended(0).result == "The answer."
    assert [each.text for each in peer.told(MessageCompleted) if each.final] == ["The answer."]


@pytest.mark.parametrize(("status", "body"), [(0, None), (404, {}), (200, {"no": "list"})])
def test_a_sub_agent_that_cannot_be_read_is_told_and_holds_nothing_up(status: int, body: Any) -> None:
    peer = Peer()
    ends_task(peer)
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    steps = peer.serves(body, status)
    assert [each.code for each in peer.told(Diagnostic)] == ["sub_agent_unread"]
    assert steps[-1] == CloseInput()


def test_a_stop_waits_for_no_sub_agent() -> None:
    peer = Peer()
    ends_task(peer)
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.interrupt() == [CloseInput()]


@pytest.mark.parametrize("output", ["", "no such agent", {"json": 1}])
def test_a_task_that_came_to_nothing_has_no_session_to_read(output: Any) -> None:
    peer = Peer()
    ends_task(peer, output=output)
    assert peer.calls == []


# ---- what its server may answer ----


@pytest.mark.parametrize(("status", "body"), [(0, None), (401, {}), (500, {}), (200, {"no": "list"})])
def test_what_cannot_be_read_ends_the_run_instead_of_waiting_for_ever(status: int, body: Any) -> None:
    peer = Peer()
    peer.logs("message=asking id=que_1 questions=1")
    steps = peer.serves(body, status)
    assert [json.loads(step.data)["method"] for step in steps if isinstance(step, Send)] == ["session/cancel"]
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    outcome = peer.conversation.ended(0)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.ENGINE_PROTOCOL_ERROR)
    assert "could not be read" in (outcome.error_message or "")


def test_a_reply_that_came_too_late_is_told_and_the_run_goes_on() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.replied("s2-1", answer="Tabs")
    peer.serves({"_tag": "QuestionNotFoundError"}, 404)
    assert [each.code for each in peer.told(Diagnostic)] == ["reply_undeliverable"]


@pytest.mark.parametrize("status", [0, 500])
def test_a_reply_that_nobody_took_ends_the_run(status: int) -> None:
    peer = Peer()
    peer.asks(QUESTION)
    peer.replied("s2-1", answer="Tabs")
    peer.serves(None, status)
    assert peer.sent[-1]["method"] == "session/cancel"
    assert peer.conversation.ended(0).error_code is ErrorCode.ENGINE_PROTOCOL_ERROR


def test_any_split_of_its_log_gives_the_same_steps() -> None:
    log = b"".join(
        b"timestamp=2026-11-21T09:25:34Z level=INFO run=1 %b\n" % said
        for said in (b"message=stream session.id=ses_1 small=false", b"message=asking id=que_1 questions=1", b"message=other")
    ) + b"a warning\n"  # fmt: skip
    whole = Peer().conversation.feed(STDERR, log)
    assert len([step for step in whole if isinstance(step, Call)]) == 1
    for cut in range(1, len(log)):
        peer = Peer()
        assert [*peer.conversation.feed(STDERR, log[:cut]), *peer.conversation.feed(STDERR, log[cut:])] == whole


def test_its_server_has_a_password_of_this_attempt() -> None:
    env = Peer().conversation.command.env
    assert (env["OPENCODE_SERVER_PASSWORD"], env["OPENCODE_ENABLE_QUESTION_TOOL"]) == ("the-key", "1")
