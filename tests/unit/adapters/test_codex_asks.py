"""What Codex asks, where no recording went: several at once, too much at once, in every engine mode, and what cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters.base import STDERR, STDOUT, Conversation
from executor.adapters.framing import MAX_LINE_BYTES
from shared.contracts.events import AttemptOutcome
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import EngineMode
from tests.unit.adapters.codex_lines import THREAD, asks, emitted, feed, notice, sent, turn_completed, working

STOP = Reply(decision=Decision.DECLINE_AND_STOP)


def asks_user(id: int) -> dict[str, Any]:
    questions = [{"id": "a", "question": "Tabs?"}]
    return {"method": "item/tool/requestUserInput", "id": id, "params": THREAD | {"questions": questions}}


def asks_mcp(id: int) -> dict[str, Any]:
    meta = {"codex_approval_kind": "mcp_tool_call", "tool_name": "write", "tool_params": {}}
    return {"method": "mcpServer/elicitation/request", "id": id, "params": THREAD | {"serverName": "own", "_meta": meta}}


def as_printed(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def told_withdrawn(steps: list[Any]) -> list[str]:
    return [data["questionId"] for kind, data in emitted(steps) if kind == "interaction.resolved"]


# ---- several at once ----


@pytest.mark.parametrize("asked", [asks(0), asks_user(0), asks_mcp(0)])
def test_a_reply_that_stops_withdraws_the_other_questions_at_once(asked: dict[str, Any]) -> None:
    codex = working()
    feed(codex, asked, asks(1))
    assert told_withdrawn(codex.answer("q2-1", STOP)) == ["q2-2"]
    assert told_withdrawn(feed(codex, notice("serverRequest/resolved", requestId=1), turn_completed("interrupted"))) == []


def test_the_runners_own_stop_leaves_the_questions_to_the_runner() -> None:
    codex = working()
    feed(codex, asks_user(0), asks(1))
    codex.interrupt()
    assert told_withdrawn(feed(codex, notice("serverRequest/resolved", requestId=0), turn_completed("interrupted"))) == []


def test_a_request_told_twice_is_asked_once_and_answered_as_it_was_asked() -> None:
    codex = working()
    feed(codex, asks(0))
    assert [kind for kind, _ in emitted(feed(codex, asks_user(0)))] == ["raw.stdout"]
    [said] = sent(codex.answer("q2-1", Reply(decision=Decision.ACCEPT)))
    assert said == {"id": 0, "result": {"decision": "accept"}}


def test_an_id_may_be_used_again_once_it_is_answered() -> None:
    codex = working()
    feed(codex, asks(0))
    codex.answer("q2-1", Reply(decision=Decision.ACCEPT))
    assert emitted(feed(codex, asks(0, "pwd")))[0][1]["questionId"] == "q2-2"


def test_what_a_person_says_beside_no_answer_reaches_the_model() -> None:
    codex = working()
    feed(codex, asks_user(0))
    said, steered = sent(codex.answer("q2-1", Reply(decision=Decision.DECLINE, message="choose yourself")))
    assert said["result"]["answers"] == {"a": {"answers": []}}
    assert steered["params"]["input"][0]["text"] == "choose yourself"


# ---- too much at once ----


def test_a_long_command_is_shown_within_bounds_and_said_to_be_cut() -> None:
    [(_kind, asked)] = emitted(feed(working(), asks(0, "ä" * 1_000_000)))
    assert len(asked["tool"]["input"]["command"].encode()) == 65_536
    assert asked["tool"]["input"]["truncated"] is True
    assert len(asked["prompt"].encode()) <= 2048


def test_a_short_command_is_shown_whole() -> None:
    [(_kind, asked)] = emitted(feed(working(), asks(0)))
    assert asked["tool"]["input"] == {"command": "ls", "cwd": None}
    assert asked["prompt"] == "May it run ls?"


@pytest.mark.parametrize("id", [0, 7, "a-1"])
def test_a_request_too_long_to_be_read_is_refused_and_told(id: int | str) -> None:
    steps = working().feed(STDOUT, as_printed(asks(id, "x" * MAX_LINE_BYTES)))
    [refused] = sent(steps)
    assert (refused["id"], refused["error"]["code"]) == (id, -32601)
    assert [data["code"] for _, data in emitted(steps)] == ["line_too_long", "request_refused"]


def test_only_what_codex_prints_to_its_client_is_a_request() -> None:
    assert sent(working().feed(STDERR, as_printed(asks(0, "x" * MAX_LINE_BYTES)))) == []


# ---- engine modes ----


@pytest.mark.parametrize(("mode", "action"), [
    (EngineMode.PLAN, "decline"), (EngineMode.READ_ONLY, "decline"), (EngineMode.FULL, "accept"),
])  # fmt: skip
def test_a_mode_that_asks_nobody_decides_by_itself(mode: EngineMode, action: str) -> None:
    steps = feed(working(mode), asks_mcp(0))
    assert [each["result"]["action"] for each in sent(steps)] == [action]
    assert emitted(steps) == []


@pytest.mark.parametrize("mode", [EngineMode.ASK, EngineMode.AUTO_EDIT])
def test_a_mode_that_asks_a_person_decides_nothing(mode: EngineMode) -> None:
    steps = feed(working(mode), asks_mcp(0), asks(1))
    assert sent(steps) == []
    assert [kind for kind, _ in emitted(steps)] == ["interaction.requested"] * 2


@pytest.mark.parametrize("mode", list(EngineMode))
def test_what_the_model_asks_its_user_is_asked_in_every_mode(mode: EngineMode) -> None:
    assert [kind for kind, _ in emitted(feed(working(mode), asks_user(0)))] == ["interaction.requested"]


# ---- what cannot be read ----


def deep(line: dict[str, Any]) -> bytes:
    return as_printed(line).replace(b'"DEEP"', b'{"a":' * 3000 + b"1" + b"}" * 3000)


@pytest.mark.parametrize("line", [
    notice("item/started", item={"type": "mcpToolCall", "id": "x", "server": "s", "tool": "t", "arguments": "DEEP"}),
    notice("item/completed", item={"type": "webSearch", "id": "x", "query": "DEEP"}),
    notice("turn/completed", turn={"id": "tu", "status": "failed", "error": {"message": "m", "codexErrorInfo": "DEEP"}}),
    {"id": 99, "result": "DEEP"},
    {"method": "something/new", "id": 5, "params": "DEEP"},
])  # fmt: skip
def test_a_nest_too_deep_to_be_read_is_shown_and_ends_nothing(line: dict[str, Any]) -> None:
    codex = working()
    assert emitted(codex.feed(STDOUT, deep(line))) != []
    assert is_well(codex)


def test_a_retry_numbered_beyond_reason_ends_nothing() -> None:
    codex = working()
    told = feed(codex, notice("error", willRetry=True, error={"message": f"Reconnecting... {'9' * 5000}/5"}))
    assert [kind for kind, _ in emitted(told)] == ["retry.scheduled"]
    assert is_well(codex)


def is_well(codex: Conversation) -> bool:
    feed(codex, notice("item/completed", item={"type": "agentMessage", "id": "m", "text": "done"}), turn_completed())
    return codex.ended(0).outcome is AttemptOutcome.SUCCESS
