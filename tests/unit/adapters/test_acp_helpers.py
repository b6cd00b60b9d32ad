"""What a sub-agent of an ACP engine says and does is told as its own, and never becomes the answer."""

from __future__ import annotations

from typing import Any

from shared.contracts.events import (
    MessageCompleted,
    MessageDelta,
    ReasoningCompleted,
    ReasoningDelta,
    ToolCompleted,
    ToolStarted,
    UsageUpdated,
)
from shared.contracts.providers import EngineMode, Provider
from tests.unit.adapters.test_acp_conversation import Peer

TASK = {"toolCallId": "task", "title": "Agent", "kind": "other", "_meta": {"toolName": "agent"}}
ITS = {"parentToolCallId": "task", "subagentType": "general-purpose"}
CALLED = {"toolCallId": "sub", "title": "ls", "kind": "execute", "rawInput": {"command": "ls"}, "_meta": ITS}
TOKENS = {"inputTokens": 10, "outputTokens": 2}


def told(peer: Peer, kind: type[Any]) -> list[tuple[str, str | None]]:
    return [(each.text, each.parent_tool_id) for each in peer.emitted(kind)]


def with_a_helper() -> Peer:
    peer = Peer(Provider.QWEN_CODE, engine_mode=EngineMode.FULL).prompted()
    peer.says_text("I ask a helper.")
    peer.updates("tool_call_update", **TASK, status="in_progress", rawInput={"prompt": "look"})
    return peer


def helper_says(peer: Peer, text: str, kind: str = "agent_message_chunk", **meta: Any) -> None:
    peer.updates(kind, content={"type": "text", "text": text}, _meta=ITS | meta)


def test_its_words_are_messages_of_their_own_and_the_answer_is_the_engines() -> None:
    peer = with_a_helper()
    helper_says(peer, "Hm.", "agent_thought_chunk")
    helper_says(peer, "I ")
    helper_says(peer, "found it.")
    helper_says(peer, "", usage=TOKENS)
    peer.updates("tool_call_update", **TASK, status="completed", rawOutput="found")
    peer.says_text("It is found.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert told(peer, MessageDelta) == [("I ask a helper.", None), ("I ", "task"), ("found it.", "task"), ("It is found.", None)]
    assert told(peer, MessageCompleted) == [("I ask a helper.", None), ("I found it.", "task"), ("It is found.", None)]
    assert [each.final for each in peer.emitted(MessageCompleted)] == [False, False, True]
    assert told(peer, ReasoningDelta) == told(peer, ReasoningCompleted) == [("Hm.", "task")]
    assert peer.conversation.ended(0).result == "It is found."
    assert peer.emitted(UsageUpdated)[-1].usage.input_tokens == 10, "its tokens are the attempt's"


def test_its_tools_are_told_as_its_own() -> None:
    peer = with_a_helper()
    helper_says(peer, "I look.")
    peer.updates("tool_call", **CALLED, status="pending")
    peer.updates("tool_call_update", **CALLED, status="completed", rawOutput="made")
    peer.updates("tool_call_update", **TASK, status="completed")
    assert [(each.tool_id, each.parent_tool_id) for each in peer.emitted(ToolStarted)] == [("task", None), ("sub", "task")]
    assert [(each.tool_id, each.parent_tool_id) for each in peer.emitted(ToolCompleted)] == [("sub", "task"), ("task", None)]
    assert told(peer, MessageCompleted)[-1] == ("I look.", "task")


def test_the_words_of_two_at_once_are_kept_apart() -> None:
    peer = with_a_helper()
    peer.updates("tool_call_update", **(TASK | {"toolCallId": "other"}), status="in_progress")
    for piece in ("a", "b"):
        helper_says(peer, piece)
        helper_says(peer, piece.upper(), parentToolCallId="other")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert told(peer, MessageCompleted)[1:] == [("ab", "task"), ("AB", "other")]


def test_a_run_of_a_helpers_words_alone_has_no_answer() -> None:
    peer = with_a_helper()
    helper_says(peer, "Only I speak.")
    peer.updates("tool_call_update", **TASK, status="completed")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.ended(0).error_code == "engine_no_output"
