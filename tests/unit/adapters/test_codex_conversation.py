"""What the Codex conversation does where no recording went: odd orders, odd requests, several questions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters.base import STDERR, STDOUT, CloseInput
from executor.adapters.framing import MAX_LINE_BYTES
from shared.contracts.events import AttemptOutcome
from shared.contracts.interactions import Decision, Reply
from shared.errors import ErrorCode, RunyardError
from tests.unit.adapters.codex_lines import (
    THREAD,
    TURN,
    agent_message,
    conversation,
    emitted,
    feed,
    notice,
    sent,
    turn_completed,
    working,
)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("item/permissions/requestApproval", {"result": {"permissions": {}, "scope": "turn"}}),
        ("mcpServer/elicitation/request", {"result": {"action": "decline", "content": None, "_meta": None}}),
        ("something/new", {"error": {"code": -32601, "message": "something/new is not supported here"}}),
    ],
)
def test_a_request_nobody_can_be_asked_about_is_refused_and_told(method: str, answer: Any) -> None:
    steps = feed(working(), {"id": 7, "method": method, "params": THREAD})
    assert sent(steps) == [{"id": 7} | answer]
    assert [(kind, data["code"]) for kind, data in emitted(steps)] == [("diagnostic", "request_refused")]


def test_a_request_we_cannot_read_is_answered_too() -> None:
    steps = feed(working(), {"id": 7, "method": "item/tool/requestUserInput", "params": {"questions": "?"}})
    assert sent(steps)[0]["error"]["code"] == -32601
    assert emitted(steps)[0][1]["code"] == "undecodable_line"


def test_lines_nobody_claims_are_shown_and_known_noise_is_not() -> None:
    codex = working()
    assert emitted(feed(codex, notice("brand/new")))[0][0] == "raw.stdout"
    assert feed(codex, notice("thread/status/changed", status={"type": "idle"})) == []
    assert emitted(codex.feed(STDOUT, b"not json\n")) == [("raw.stdout", {"text": "not json"})]
    assert emitted(codex.feed(STDERR, b"\x1b[2mgrey\x1b[0m\n")) == [("raw.stderr", {"text": "grey"})]


def test_a_known_notification_we_cannot_read_is_a_diagnostic_with_the_line() -> None:
    (kind, data), *_ = emitted(feed(working(), notice("turn/plan/updated", plan=3)))
    assert (kind, data["code"]) == ("diagnostic", "undecodable_line")
    assert "turn/plan/updated" in data["message"]


def test_a_plan_becomes_a_todo_list() -> None:
    steps = feed(
        working(), notice("turn/plan/updated", plan=[{"step": "a", "status": "inProgress"}, {"step": "b", "status": "?"}])
    )
    items = [{"text": "a", "status": "in_progress"}, {"text": "b", "status": "pending"}]
    assert emitted(steps) == [("plan.updated", {"items": items})]


def test_a_message_before_the_turn_waits_for_it() -> None:
    codex = conversation()
    codex.opened()
    assert codex.message("also this") == []
    steps = feed(
        codex, {"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}, {"id": 3, "result": {"turn": TURN}}
    )
    steer = sent(steps)[-1]
    assert (steer["method"], steer["params"]["expectedTurnId"]) == ("turn/steer", "tu")
    assert steer["params"]["input"] == [{"type": "text", "text": "also this"}]


def test_a_message_that_comes_too_late_for_the_turn_starts_another() -> None:
    codex = working()
    (steer,) = sent(codex.message("more"))
    between = feed(codex, agent_message("first"), turn_completed())
    assert CloseInput() not in between, "the message on its way would be lost"
    steps = feed(codex, {"id": steer["id"], "error": {"code": -32600, "message": "no active turn to steer"}})
    (start,) = sent(steps)
    assert (start["method"], start["params"]["input"][0]["text"]) == ("turn/start", "more")
    assert ("message.completed", {"messageId": "m1", "text": "first", "final": False}) in emitted(steps)
    feed(codex, {"id": start["id"], "result": {"turn": TURN | {"id": "tu2"}}}, agent_message("second"))
    assert feed(codex, turn_completed())[-1] == CloseInput()
    assert codex.ended(0).result == "second"


def test_a_steered_message_that_was_taken_lets_the_turn_end() -> None:
    codex = working()
    (steer,) = sent(codex.message("more"))
    feed(codex, agent_message("first"), turn_completed())
    steps = feed(codex, {"id": steer["id"], "result": {"turnId": "tu"}})
    assert steps[-1] == CloseInput()
    assert emitted(steps)[0][1]["final"] is True


def test_after_the_end_no_message_is_taken() -> None:
    codex = working()
    feed(codex, turn_completed())
    with pytest.raises(RunyardError, match="conflict"):
        codex.message("late")


def test_an_interrupt_before_the_turn_is_accepted_follows_it() -> None:
    codex = conversation()
    codex.opened()
    feed(codex, {"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}})
    assert codex.interrupt() == []
    (interrupt,) = sent(feed(codex, {"id": 3, "result": {"turn": TURN}}))
    assert (interrupt["method"], interrupt["params"]["turnId"]) == ("turn/interrupt", "tu")


def test_an_interrupt_before_there_is_a_thread_closes_at_once() -> None:
    codex = conversation()
    codex.opened()
    assert codex.interrupt() == [CloseInput()]
    assert codex.interrupt() == []
    assert codex.ended(0).outcome is AttemptOutcome.CANCELED


def test_a_turn_that_was_finished_before_the_interrupt_counts() -> None:
    codex = working()
    feed(codex, agent_message("done"))
    codex.interrupt()
    feed(codex, turn_completed())
    assert codex.ended(0).outcome is AttemptOutcome.SUCCESS


def test_a_question_the_engine_takes_back_is_withdrawn_unless_we_are_stopping() -> None:
    ask = {"id": 0, "method": "item/commandExecution/requestApproval", "params": THREAD | {"itemId": "i", "command": "ls"}}
    codex = working()
    assert emitted(feed(codex, ask))[0][1]["questionId"] == "q2-1"
    taken_back = emitted(feed(codex, notice("serverRequest/resolved", requestId=0)))
    assert taken_back == [("interaction.resolved", {"questionId": "q2-1", "how": "withdrawn"})]
    with pytest.raises(RunyardError, match="conflict"):
        codex.answer("q2-1", Reply(decision=Decision.ACCEPT))
    stopping = working()
    feed(stopping, ask)
    stopping.interrupt()
    assert emitted(feed(stopping, notice("serverRequest/resolved", requestId=0), turn_completed("interrupted"))) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Tabs", {"a": ["Tabs"], "b": []}),
        (["Tabs", "4"], {"a": ["Tabs"], "b": ["4"]}),
        ({"a": "Tabs", "Width": 4}, {"a": ["Tabs"], "b": ["4"]}),
        ({"How wide?": ["4", "8"]}, {"a": [], "b": ["4", "8"]}),
    ],
)
def test_several_questions_in_one_are_answered_by_name_or_in_order(answer: Any, expected: dict[str, list[str]]) -> None:
    codex = working()
    questions = [
        {"id": "a", "header": "Indent", "question": "Tabs or spaces?", "options": [{"label": "Tabs"}]},
        {"id": "b", "header": "Width", "question": "How wide?", "options": None},
    ]
    (kind, asked), *_ = emitted(
        feed(codex, {"id": 0, "method": "item/tool/requestUserInput", "params": {"questions": questions}})
    )
    assert kind == "interaction.requested"
    assert list(asked["schema"]["properties"]) == ["a", "b"]
    (said,) = sent(codex.answer("q2-1", Reply(answer=answer)))
    assert {name: each["answers"] for name, each in said["result"]["answers"].items()} == expected


@pytest.mark.parametrize(
    ("reply", "decision", "steered"),
    [
        (Reply(answer="acceptForSession"), "acceptForSession", None),
        (Reply(answer="not there"), "decline", "not there"),
        (Reply(decision=Decision.DECLINE, message="not there"), "decline", "not there"),
        (Reply(decision=Decision.ACCEPT, message="fine"), "accept", None),
        (Reply(decision=Decision.DECLINE_AND_STOP, message="no"), "cancel", None),
    ],
)
def test_a_reply_to_a_permission_is_a_decision_and_perhaps_a_reason(reply: Reply, decision: str, steered: str | None) -> None:
    codex = working()
    feed(codex, {"id": 0, "method": "item/commandExecution/requestApproval", "params": THREAD | {"itemId": "i", "command": "ls"}})
    said, *more = sent(codex.answer("q2-1", reply))
    assert said == {"id": 0, "result": {"decision": decision}}
    assert [each["params"]["input"][0]["text"] for each in more] == ([steered] if steered else [])


def test_long_output_is_cut_and_says_so() -> None:
    item = {
        "type": "commandExecution",
        "id": "c",
        "command": "yes",
        "status": "failed",
        "aggregatedOutput": "ä" * 50_000,
        "exitCode": 1,
    }
    started, completed = emitted(feed(working(), notice("item/completed", item=item)))
    assert started[0] == "tool.started"
    assert (completed[1]["status"], completed[1]["exitCode"], completed[1]["truncated"]) == ("failed", 1, True)
    assert len(completed[1]["output"].encode()) == 65536


def test_a_tool_without_a_shape_of_ours_is_shown_whole_under_its_type() -> None:
    item = {"type": "webSearch", "id": "w", "query": "weather", "action": None}
    kinds = emitted(feed(working(), notice("item/started", item=item), notice("item/completed", item=item)))
    assert [(kind, data["name"]) for kind, data in kinds] == [("tool.started", "webSearch"), ("tool.completed", "webSearch")]
    assert kinds[0][1]["input"]["query"] == "weather"


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [
        (0, ErrorCode.ENGINE_NO_OUTPUT),
        (1, ErrorCode.ENGINE_EXIT_NONZERO),
        (-9, ErrorCode.ENGINE_EXIT_NONZERO),
        (None, ErrorCode.ENGINE_START_FAILED),
    ],
)
def test_an_exit_without_a_finished_turn_is_an_error(exit_code: int | None, code: ErrorCode) -> None:
    outcome = working().ended(exit_code)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, code)


@pytest.mark.parametrize("exit_code", [0, 1, -9])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_exit_before_the_turn_is_a_start_that_failed(step: int, exit_code: int) -> None:
    codex = conversation()
    codex.opened()
    feed(codex, *[{"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}][:step])
    outcome = codex.ended(exit_code)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.ENGINE_START_FAILED)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_handshake_that_is_refused_ends_the_attempt_with_its_reason(step: int) -> None:
    codex = conversation()
    codex.opened()
    answers = [{"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}]
    steps = feed(codex, *answers[: step - 1], {"id": step, "error": {"code": -1, "message": "because"}})
    assert steps[-1] == CloseInput()
    outcome = codex.ended(0)
    assert (outcome.error_code, outcome.error_message) == (ErrorCode.ENGINE_START_FAILED, "because")


def test_a_turn_that_ends_in_a_line_too_long_to_be_read_ends_the_run() -> None:
    codex = working()
    line = json.dumps(turn_completed() | {"padding": "x" * MAX_LINE_BYTES}, separators=(",", ":")).encode()
    steps = codex.feed(STDOUT, line + b"\n")
    assert [kind for kind, _ in emitted(steps)] == ["diagnostic"]
    assert CloseInput() in steps
    ended = codex.ended(0)
    assert (ended.outcome, ended.error_code) == (AttemptOutcome.ERROR, ErrorCode.OUTPUT_LIMIT)


def test_any_other_line_too_long_to_be_read_ends_nothing() -> None:
    codex = working()
    steps = codex.feed(STDOUT, json.dumps(agent_message("x" * MAX_LINE_BYTES), separators=(",", ":")).encode() + b"\n")
    assert [kind for kind, _ in emitted(steps)] == ["diagnostic"]
    assert CloseInput() not in steps
