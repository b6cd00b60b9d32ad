"""What Codex's helpers say and do is theirs, and what tools of servers may do is asked about like anything else."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.base import STDOUT, CloseInput
from shared.contracts.interactions import Decision, Reply
from shared.errors import ErrorCode
from tests.unit.adapters.codex_lines import THREAD, emitted, feed, notice, sent, turn_completed, working

MCP_CALL = {"codex_approval_kind": "mcp_tool_call", "tool_name": "echo", "tool_params": {"text": "hi"}}
ASKS_FOR_MCP = {"id": 4, "method": "mcpServer/elicitation/request", "params": THREAD | {"serverName": "own", "_meta": MCP_CALL}}


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Decision.ACCEPT, {"action": "accept", "content": {}, "_meta": None}),
        (Decision.ACCEPT_FOR_SESSION, {"action": "accept", "content": {}, "_meta": {"persist": "session"}}),
        (Decision.DECLINE, {"action": "decline", "content": None, "_meta": None}),
    ],
)
def test_a_tool_of_a_server_is_asked_about_like_any_other(decision: Decision, said: Any) -> None:
    codex = working()
    [(kind, asked)] = emitted(feed(codex, ASKS_FOR_MCP))
    assert (kind, asked["type"], asked["tool"]) == (
        "interaction.requested", "permission", {"name": "own.echo", "input": {"text": "hi"}},
    )  # fmt: skip
    assert sent(codex.answer("q2-1", Reply(decision=decision))) == [{"id": 4, "result": said}]


def test_a_tool_of_a_server_that_is_declined_to_the_end_ends_the_turn() -> None:
    codex = working()
    feed(codex, ASKS_FOR_MCP)
    refused, interrupt = sent(codex.answer("q2-1", Reply(decision=Decision.DECLINE_AND_STOP)))
    assert (refused["result"]["action"], interrupt["method"]) == ("cancel", "turn/interrupt")


def of_helper(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": {"threadId": "helper"} | params}


HELPERS_TURN_ENDED = of_helper("turn/completed", turn={"id": "h", "status": "completed"})
SPAWN = {"type": "collabAgentToolCall", "id": "call_1", "tool": "spawnAgent", "status": "completed"}
SPAWNED = notice("item/completed", item=SPAWN | {"receiverThreadIds": ["helper"]})
BEGUN = notice("item/started", item={"type": "subAgentActivity", "id": "call_1", "kind": "started", "agentThreadId": "helper"})


def test_helpers_of_the_engine_cost_tokens_but_do_not_answer() -> None:
    codex = working()
    usage = {"inputTokens": 5, "outputTokens": 1}
    steps = feed(
        codex,
        SPAWNED,
        of_helper("item/completed", item={"type": "agentMessage", "id": "x", "text": "helper"}),
        of_helper("turn/plan/updated", plan=[{"step": "the helper's"}]),
        of_helper("thread/tokenUsage/updated", tokenUsage={"total": usage, "last": usage}),
        HELPERS_TURN_ENDED,
    )
    assert [kind for kind, _ in emitted(steps)][2:] == ["usage.updated", "message.completed"]
    assert CloseInput() not in steps
    assert feed(codex, turn_completed()) == [CloseInput()]
    assert codex.ended(0).error_code is ErrorCode.ENGINE_NO_OUTPUT


@pytest.mark.parametrize("start", [SPAWNED, BEGUN], ids=["spawned", "begun"])
def test_what_a_helper_says_and_does_is_marked_as_its(start: Any) -> None:
    codex = working()
    feed(codex, start)
    command = {"type": "commandExecution", "id": "c", "command": "ls", "status": "completed", "exitCode": 0}
    told = emitted(
        feed(
            codex,
            of_helper("item/agentMessage/delta", itemId="x", delta="hel"),
            of_helper("item/completed", item={"type": "agentMessage", "id": "x", "text": "helper"}),
            of_helper("item/started", item=command | {"status": "inProgress"}),
            of_helper("item/completed", item=command),
            of_helper("item/completed", item={"type": "reasoning", "id": "r", "summary": ["hm"]}),
        )
    )
    assert [(kind, data["parentToolId"]) for kind, data in told] == [
        (kind, "call_1")
        for kind in ("message.delta", "message.completed", "tool.started", "tool.completed", "reasoning.completed")
    ]
    assert told[1][1]["final"] is False


def test_a_helper_of_a_helper_is_told_beside_the_call_that_started_it() -> None:
    codex = working()
    inner = SPAWN | {"id": "call_2", "receiverThreadIds": ["inner"]}
    feed(codex, SPAWNED, of_helper("item/completed", item=inner))
    said = {"type": "agentMessage", "id": "x", "text": "deep"}
    ended = {"threadId": "inner", "turn": {"id": "i", "status": "completed"}}
    steps = feed(
        codex,
        {"method": "item/completed", "params": {"threadId": "inner", "item": said}},
        {"method": "turn/completed", "params": ended},
    )
    assert [(data["text"], data["parentToolId"]) for _, data in emitted(steps)] == [("deep", "call_2")]


def test_a_thread_nobody_started_is_not_told() -> None:
    codex = working()
    item = {"type": "agentMessage", "id": "x", "text": "who?"}
    assert feed(codex, of_helper("item/completed", item=item), HELPERS_TURN_ENDED) == []


def test_what_a_helper_was_doing_at_the_end_was_canceled() -> None:
    codex = working()
    feed(codex, SPAWNED, of_helper("item/started", item={"type": "commandExecution", "id": "c", "command": "sleep"}))
    [(_, done)] = emitted(codex.end_of(STDOUT))
    assert (done["status"], done["parentToolId"]) == ("canceled", "call_1")


def test_an_edit_of_a_helper_is_asked_about_with_its_diff() -> None:
    codex = working()
    edit = {"type": "fileChange", "id": "e", "changes": [{"path": "/w/a", "kind": {"type": "add"}, "diff": "new"}]}
    asked = {"id": 9, "method": "item/fileChange/requestApproval", "params": {"threadId": "helper", "itemId": "e"}}
    told = emitted(feed(codex, SPAWNED, of_helper("item/started", item=edit), asked))
    assert told[-1][1]["tool"]["input"]["changes"][0]["diff"] == "new"
