"""The ACP client, spoken to by a scripted peer: what the recordings of real engines do not hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, CloseInput, Conversation, Emit, Send, StartRequest, Step
from shared.contracts.events import (
    AttemptOutcome,
    Diagnostic,
    InteractionRequested,
    MessageCompleted,
    MessageDelta,
    RawStderr,
    RetryScheduled,
    ToolCompleted,
    ToolStarted,
)
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

KEYS = {"GEMINI_API_KEY": "sk-g", "OPENAI_API_KEY": "sk-o", "IFLOW_API_KEY": "sk-i"}
ACP = (Provider.GEMINI_CLI, Provider.OPENCODE, Provider.QWEN_CODE, Provider.IFLOW_CLI)
OPTIONS = [
    {"optionId": "yes", "kind": "allow_once"}, {"optionId": "yes-and-more", "kind": "allow_once"},
    {"optionId": "always", "kind": "allow_always"}, {"optionId": "no", "kind": "reject_once"},
]  # fmt: skip


class Peer:
    """A conversation and the engine's side of it, played by the test."""

    def __init__(self, provider: Provider, session: str | None = None, **more: Any) -> None:
        fields: dict[str, Any] = {
            "run_id": "run_1", "attempt": 1, "executable": "/engines/engine", "home": "/home/agent", "workspace": "/workspace",
            "messages": [Message(content="hi")], "credential_env": KEYS,
        }  # fmt: skip
        request = StartRequest(**(fields | more))
        adapter = ADAPTERS[provider]
        self.conversation: Conversation = adapter.start(request) if session is None else adapter.resume(request, session)
        self.steps: list[Step] = self.conversation.opened()

    def says(self, **message: Any) -> list[Step]:
        steps = self.conversation.feed(STDOUT, json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
        self.steps += steps
        return steps

    def answers(self, method: str, result: Any = None, error: Any = None) -> list[Step]:
        """To our newest request by this method."""
        number = [each["id"] for each in self.sent if each.get("method") == method][-1]
        return self.says(id=number, **({"error": error} if error else {"result": result or {}}))

    def updates(self, kind: str, /, **update: Any) -> list[Step]:
        told = {"sessionId": "s1", "update": {"sessionUpdate": kind} | update}
        return self.says(method="session/update", params=told)

    def says_text(self, text: str) -> list[Step]:
        return self.updates("agent_message_chunk", content={"type": "text", "text": text})

    def asks(self, number: int = 70, **call: Any) -> str:
        tool = {"toolCallId": "t1", "kind": "execute", "title": "ls", "rawInput": {"command": "ls"}} | call
        self.says(id=number, method="session/request_permission", params={"toolCall": tool, "options": OPTIONS})
        return self.emitted(InteractionRequested)[-1].question_id

    def prompted(self) -> Peer:
        self.answers("initialize")
        if any(each.get("method") == "authenticate" for each in self.sent):
            self.answers("authenticate")
        opening = "session/load" if any(each.get("method") == "session/load" for each in self.sent) else "session/new"
        self.answers(opening, {"sessionId": "s1"})
        self.answers("session/set_mode")
        return self

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(step.data) for step in self.steps if isinstance(step, Send)]

    def emitted(self, kind: type[Any]) -> list[Any]:
        return [step.payload for step in self.steps if isinstance(step, Emit) and isinstance(step.payload, kind)]

    def prompts(self) -> list[str]:
        return [each["params"]["prompt"][0]["text"] for each in self.sent if each.get("method") == "session/prompt"]


@pytest.mark.parametrize("provider", ACP)
def test_a_whole_run_over_a_scripted_peer(provider: Provider) -> None:
    peer = Peer(provider).prompted()
    peer.says_text("Hello ")
    peer.says_text("there.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert isinstance(peer.steps[-1], CloseInput)
    outcome = peer.conversation.ended(0)
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, "Hello there.")
    assert [(each.text, each.final) for each in peer.emitted(MessageCompleted)] == [("Hello there.", True)]


def test_iflow_signs_in_over_acp_and_its_control_lines_do_no_harm() -> None:
    peer = Peer(Provider.IFLOW_CLI, model="m")
    assert peer.conversation.feed(STDOUT, b"//ready\n") != []
    peer.prompted()
    [signed] = [each for each in peer.sent if each.get("method") == "authenticate"]
    assert signed["params"]["methodInfo"] == {"apiKey": "sk-i", "modelName": "m"}
    assert peer.prompts() == ["hi"]


@pytest.mark.parametrize(("decision", "option"), [
    (Decision.ACCEPT, "yes"),
    (Decision.ACCEPT_FOR_SESSION, "always"),
    (Decision.DECLINE, "no"),
])  # fmt: skip
def test_a_decision_is_the_first_option_of_its_kind(decision: Decision, option: str) -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    peer.steps += peer.conversation.answer(peer.asks(), Reply(decision=decision))
    assert peer.sent[-1]["result"] == {"outcome": {"outcome": "selected", "optionId": option}}


@pytest.mark.parametrize(("provider", "message", "prompts"), [
    (Provider.GEMINI_CLI, None, 1),
    (Provider.GEMINI_CLI, "not that", 2),
    (Provider.QWEN_CODE, None, 2),
    (Provider.OPENCODE, "not that", 2),
])  # fmt: skip
def test_after_a_no_the_model_is_told_where_the_engine_does_not(provider: Provider, message: str | None, prompts: int) -> None:
    peer = Peer(provider).prompted()
    peer.steps += peer.conversation.answer(peer.asks(), Reply(decision=Decision.DECLINE, message=message))
    peer.updates("tool_call_update", toolCallId="t1", status="failed")
    peer.says_text("Well.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert [each.status for each in peer.emitted(ToolCompleted)] == ["declined"]
    assert len(peer.prompts()) == prompts
    assert (message or "") in peer.prompts()[-1]


def test_questions_to_the_user_are_questions_and_their_answers_go_by_position() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    asked = [
        {"question": "Which colour?", "header": "Colour", "options": [{"label": "Red"}, {"label": "Blue"}]},
        {"question": "How many?", "header": "Count", "options": [], "multiSelect": True},
    ]
    meta = {"toolName": "ask_user_question", "qwenInteractionKind": "user_question"}
    question_id = peer.asks(rawInput={"questions": asked}, kind="think", _meta=meta)
    [told] = peer.emitted(InteractionRequested)
    assert (told.type, told.prompt) == (InteractionType.QUESTION, "Which colour?\nHow many?")
    assert [each["type"] for each in told.schema_["properties"].values()] == ["string", ["string", "array"]]
    peer.steps += peer.conversation.answer(question_id, Reply(answer={"Colour": "Blue", "1": ["2", "3"]}))
    assert peer.sent[-1]["result"]["answers"] == {"0": "Blue", "1": "2, 3"}
    assert peer.sent[-1]["result"]["outcome"]["optionId"] == "yes"


@pytest.mark.parametrize(("mode", "option"), [(EngineMode.PLAN, "no"), (EngineMode.READ_ONLY, "no"), (EngineMode.FULL, "yes")])
def test_where_nobody_is_asked_the_mode_decides_on_a_permission(mode: EngineMode, option: str) -> None:
    peer = Peer(Provider.GEMINI_CLI, engine_mode=mode).prompted()
    tool = {"toolCallId": "t1", "kind": "edit", "title": "write"}
    peer.says(id=70, method="session/request_permission", params={"toolCall": tool, "options": OPTIONS})
    assert peer.sent[-1]["result"]["outcome"]["optionId"] == option
    assert peer.emitted(InteractionRequested) == []
    assert [each.status for each in peer.emitted(ToolCompleted)] == (["declined"] if option == "no" else [])


@pytest.mark.parametrize("mode", list(EngineMode))
def test_a_question_to_the_user_reaches_one_in_every_mode(mode: EngineMode) -> None:
    peer = Peer(Provider.QWEN_CODE, engine_mode=mode).prompted()
    peer.asks(rawInput={"questions": [{"question": "Which?"}]}, _meta={"qwenInteractionKind": "user_question"})
    assert len(peer.emitted(InteractionRequested)) == 1


def test_our_files_and_terminals_are_refused() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    peer.says(id=9, method="fs/write_text_file", params={"path": "/etc/passwd", "content": ""})
    assert (peer.sent[-1]["id"], peer.sent[-1]["error"]["code"]) == (9, -32601)
    assert peer.emitted(Diagnostic) == []
    peer.says(id=10, method="terminal/create", params={})
    assert [each.code for each in peer.emitted(Diagnostic)] == ["request_refused"]


def test_a_stop_answers_the_open_question_and_waits_for_the_prompts_end() -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    question_id = peer.asks()
    peer.steps += peer.conversation.interrupt()
    assert [each.get("method") or each["result"]["outcome"] for each in peer.sent[-2:]] == [
        "session/cancel", {"outcome": "cancelled"},
    ]  # fmt: skip
    with pytest.raises(RunyardError) as refused:
        peer.conversation.answer(question_id, Reply(decision=Decision.ACCEPT))
    assert refused.value.code is ErrorCode.CONFLICT
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert isinstance(peer.steps[-1], CloseInput)
    assert peer.conversation.ended(0).error_code is ErrorCode.USER_CANCELED


PREPARED = {"toolCallId": "t1", "status": "pending", "kind": "execute", "title": "Shell", "rawInput": {}}
BEGUN = PREPARED | {"status": "in_progress", "title": "Shell: sleep 97", "rawInput": {"command": "sleep 97"}}


def test_a_tool_begins_when_it_runs_and_not_when_it_is_prepared() -> None:
    peer = Peer(Provider.QWEN_CODE, engine_mode=EngineMode.FULL).prompted()
    peer.updates("tool_call", **PREPARED)
    assert peer.emitted(ToolStarted) == []
    peer.updates("tool_call_update", **BEGUN)
    assert [(each.name, each.input) for each in peer.emitted(ToolStarted)] == [("shell", {"command": "sleep 97"})]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_an_engine_would_not_run_has_failed_and_was_not_canceled(is_stopped: bool) -> None:
    peer = Peer(Provider.QWEN_CODE, engine_mode=EngineMode.FULL).prompted()
    peer.updates("tool_call", **PREPARED)
    if is_stopped:
        peer.steps += peer.conversation.interrupt()
    peer.updates("tool_call_update", toolCallId="t1", status="failed", rawOutput={"output": "Blocked", "exitCode": 1})
    assert [(each.status, each.output, each.exit_code) for each in peer.emitted(ToolCompleted)] == [("failed", "Blocked", 1)]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_command_that_ran_when_it_was_stopped_is_canceled_whatever_the_engine_calls_it(status: str) -> None:
    peer = Peer(Provider.QWEN_CODE, engine_mode=EngineMode.FULL).prompted()
    peer.updates("tool_call", **BEGUN)
    peer.steps += peer.conversation.interrupt()
    peer.updates("tool_call_update", toolCallId="t1", status=status, rawOutput={"output": "begun", "exitCode": 0})
    assert [(each.status, each.output, each.exit_code) for each in peer.emitted(ToolCompleted)] == [("canceled", "begun", None)]


@pytest.mark.parametrize("method", ["initialize", "session/new", "session/set_mode"])
def test_a_stop_during_the_handshake_sends_no_prompt(method: str) -> None:
    peer = Peer(Provider.GEMINI_CLI)
    for each in ("initialize", "session/new", "session/set_mode"):
        if each == method:
            peer.steps += peer.conversation.interrupt()
        peer.answers(each, {"sessionId": "s1"})
        if each == method:
            break
    assert peer.prompts() == []
    assert sum(isinstance(step, CloseInput) for step in peer.steps) == 1


@pytest.mark.parametrize(("stop_reason", "code"), [
    ("max_tokens", ErrorCode.OUTPUT_LIMIT),
    ("refusal", ErrorCode.INVALID_REQUEST),
    ("max_turn_requests", ErrorCode.ENGINE_EXIT_NONZERO),
])  # fmt: skip
def test_an_end_that_only_looks_like_one_is_a_failure(stop_reason: str, code: ErrorCode) -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    peer.says_text("so far")
    peer.answers("session/prompt", {"stopReason": stop_reason})
    assert peer.conversation.ended(0).error_code is code


def test_an_engine_that_dies_in_the_middle_has_not_succeeded() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    peer.says_text("so far")
    peer.steps += peer.conversation.end_of(STDOUT)
    assert peer.conversation.ended(-9).error_code is ErrorCode.ENGINE_EXIT_NONZERO


LOG = "timestamp=2026-11-21T06:44:03.945Z level={} run=c2 message={} session.id=ses_1 small=false agent=build"


def logged(peer: Peer, level: str, message: str, more: str = "") -> None:
    line = LOG.format(level, message) + more + "\n"
    peer.steps += peer.conversation.feed(STDERR, line.encode())


def test_retries_that_only_a_log_tells_are_told_and_bounded_and_their_text_is_shown_once() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    logged(peer, "INFO", "process")
    for _ in range(3):
        logged(peer, "INFO", "stream")
        peer.says_text("partial ")
        logged(peer, "ERROR", '"stream error"', ' error.error="AI_APICallError: Rate limit reached"')
    assert [(each.error_code, each.attempt) for each in peer.emitted(RetryScheduled)] == [
        (ErrorCode.RATE_LIMITED, 1), (ErrorCode.RATE_LIMITED, 2),
    ]  # fmt: skip
    assert peer.sent[-1]["method"] == "session/cancel"
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    outcome = peer.conversation.ended(0)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.RATE_LIMITED)
    assert [each.text for each in peer.emitted(MessageDelta)] == ["partial "]


def test_a_new_step_of_a_log_is_no_retry() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    for _ in range(5):
        logged(peer, "INFO", "process")
        logged(peer, "INFO", "stream")
    assert peer.emitted(RetryScheduled) == []


AT = "2026-11-21T09:35:40.410Z "
REFUSED = AT + "[ERROR] [OPENAI_ERROR] OpenAI API Error: 429 Rate limit reached {"
TRIED = AT + "[WARN] [RETRY] Attempt {} failed with status 429. Retrying {}... {{"
LATER, MUCH_LATER = "with backoff in 2s", "after explicit delay of 600000ms"


def says_in_log(peer: Peer, *lines: str) -> None:
    for each in lines:
        peer.steps += peer.conversation.feed(STDERR, each.encode() + b"\n  kind: 'http',\n} Error: 429 Rate limit reached\n")


def test_retries_of_a_call_that_said_nothing_are_told_and_bounded() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    for attempt in (1, 2, 3, 4):
        says_in_log(peer, REFUSED, TRIED.format(attempt, LATER))
    assert [(each.by, each.error_code, each.attempt) for each in peer.emitted(RetryScheduled)] == [
        ("engine", ErrorCode.RATE_LIMITED, 1), ("engine", ErrorCode.RATE_LIMITED, 2),
    ]  # fmt: skip
    assert [each.get("method") for each in peer.sent].count("session/cancel") == 1
    assert peer.emitted(RawStderr) == []
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert peer.conversation.ended(0).error_code is ErrorCode.RATE_LIMITED


def test_an_engine_does_not_wait_for_minutes_because_a_model_asked_it_to() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    says_in_log(peer, REFUSED, TRIED.format(1, MUCH_LATER))
    assert peer.sent[-1]["method"] == "session/cancel"


def test_a_call_the_engine_makes_for_itself_may_fail_and_ends_nothing() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    says_in_log(peer, TRIED.format(1, LATER))
    peer.says_text("Meanwhile ")
    says_in_log(peer, REFUSED, TRIED.format(2, LATER), TRIED.format(3, LATER))
    peer.says_text("I answer.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.ended(0).result == "Meanwhile I answer."


def test_while_a_tool_runs_the_retries_are_not_the_sessions_own() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    peer.updates("tool_call_update", **BEGUN)
    says_in_log(peer, *(TRIED.format(attempt, LATER) for attempt in (1, 2, 3)))
    assert "session/cancel" not in {each.get("method") for each in peer.sent}
    assert len(peer.emitted(RetryScheduled)) == 3


def test_an_answer_that_was_not_whole_is_asked_for_again_and_shown_once() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    peer.says_text("partial ")
    says_in_log(peer, AT + "[WARN] [QWEN_CODE_CHAT] Invalid stream [NO_FINISH_REASON] (retry 1/4). Waiting 2s before retrying...")
    peer.says_text("partial and whole")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert [each.text for each in peer.emitted(MessageDelta)] == ["partial ", "and whole"]
    assert [each.error_code for each in peer.emitted(RetryScheduled)] == [ErrorCode.MODEL_UNAVAILABLE]
    assert peer.conversation.ended(0).result == "partial and whole"


@pytest.mark.parametrize(("provider", "error", "code"), [
    (Provider.GEMINI_CLI, {"message": "Internal error", "data": {"details": "No previous sessions found for this project."}},
     ErrorCode.NOT_FOUND),
    (Provider.OPENCODE, {"message": "Internal error: OpenCode service failure", "data": {"service": "session"}},
     ErrorCode.NOT_FOUND),
    (Provider.QWEN_CODE, {"code": -32002, "message": "Resource not found: session:x"}, ErrorCode.NOT_FOUND),
    (Provider.QWEN_CODE, {"message": "Internal error", "data": {"details": "fetch failed"}}, ErrorCode.NETWORK_ERROR),
    (Provider.QWEN_CODE, {"message": "Internal error", "data": {"details": "401 Invalid API key"}}, ErrorCode.AUTH_FAILED),
    (Provider.GEMINI_CLI, {"code": -32000, "message": "Gemini API key is missing or not configured."}, ErrorCode.AUTH_MISSING),
])  # fmt: skip
def test_a_session_that_cannot_be_loaded_is_gone_unless_the_engine_says_another_reason(
    provider: Provider, error: dict[str, Any], code: ErrorCode
) -> None:
    peer = Peer(provider, session="5f2f7d0e-9a52-4f0b-8a7e-6d1d4c1b7a90")
    peer.answers("initialize")
    peer.answers("session/load", error={"code": -32603} | error)
    assert peer.conversation.ended(0).error_code is code


def test_a_session_no_engine_named_is_no_path() -> None:
    assert "../../.bashrc" not in str(Peer(Provider.QWEN_CODE, session="../../.bashrc").conversation.command)


@pytest.mark.parametrize("prompt", ["/help", "  /quit", "$x", "!ls"])
def test_a_prompt_never_begins_like_a_command(prompt: str) -> None:
    peer = Peer(Provider.GEMINI_CLI, messages=[Message(content=prompt)]).prompted()
    assert peer.prompts() == [f"[user]\n{prompt}"]
