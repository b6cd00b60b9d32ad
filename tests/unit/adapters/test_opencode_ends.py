"""How OpenCode's ways of asking end: with the prompt, with a reply that stops, and never by a server that is gone with it."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.base import CloseInput, call_stream
from shared.contracts.events import AttemptOutcome, InteractionRequested, InteractionResolved
from shared.contracts.interactions import Decision
from shared.errors import ErrorCode
from tests.unit.adapters.test_opencode_asks import OF_A_HELPER, QUESTION, Peer, ends_task


def ask_over_acp(peer: Peer, number: int = 70) -> str:
    call = {"toolCallId": f"t{number}", "kind": "execute", "title": "ls", "rawInput": {"command": "ls"}}
    peer.says(id=number, method="session/request_permission", params={"toolCall": call, "options": []})
    return peer.told(InteractionRequested)[-1].question_id


def withdrawn(peer: Peer) -> list[str]:
    return [each.question_id for each in peer.told(InteractionResolved)]


def server_is_gone(peer: Peer) -> None:
    """What becomes of our newest call when the engine has ended."""
    stream = call_stream(peer.calls[-1].call_id)
    peer.did([*peer.conversation.feed(stream, b'{"status": 0}\n'), *peer.conversation.end_of(stream)])


def says_text(peer: Peer, text: str) -> None:
    told = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    peer.says(method="session/update", params={"sessionId": "ses_1", "update": told})


def test_a_reply_that_stops_withdraws_what_is_open_on_the_other_way() -> None:
    peer = Peer()
    peer.asks(OF_A_HELPER, board="per")
    peer.replied(ask_over_acp(peer), decision=Decision.DECLINE_AND_STOP)
    assert withdrawn(peer) == ["s2-1"]

    peer = Peer()
    peer.asks(QUESTION, QUESTION | {"id": "que_2"})
    over_acp = ask_over_acp(peer)
    peer.replied("s2-1", decision=Decision.DECLINE_AND_STOP)
    assert withdrawn(peer) == ["s2-2", over_acp]


def test_what_is_open_is_withdrawn_when_its_server_fails() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    over_acp = ask_over_acp(peer)
    peer.logs("message=asking id=que_2 questions=1")
    server_is_gone(peer)
    assert withdrawn(peer) == ["s2-1", over_acp]
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert withdrawn(peer) == ["s2-1", over_acp]
    assert peer.conversation.ended(0).error_code is ErrorCode.ENGINE_PROTOCOL_ERROR


def test_what_is_open_is_withdrawn_when_the_prompt_ends_without_it() -> None:
    peer = Peer()
    peer.asks(QUESTION)
    says_text(peer, "Never mind.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert withdrawn(peer) == ["s2-1"]


def test_a_stop_by_a_reply_stays_one_when_the_server_is_gone_with_it() -> None:
    peer = Peer()
    peer.tool("in_progress", id="task_1", title="task")
    peer.asks(OF_A_HELPER, board="per")
    peer.logs("message=asking id=per_2")
    peer.replied(ask_over_acp(peer), decision=Decision.DECLINE_AND_STOP)
    peer.tool("failed", id="task_1", title="task")
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert CloseInput() in peer.steps
    server_is_gone(peer)
    assert peer.conversation.ended(0).outcome is AttemptOutcome.CANCELED


@pytest.mark.parametrize("is_helper_unread", [False, True])
@pytest.mark.parametrize("reply", [None, {"answer": "Tabs"}])
def test_a_success_stays_one_when_the_server_is_gone_with_it(reply: dict[str, Any] | None, is_helper_unread: bool) -> None:
    peer = Peer()
    if is_helper_unread:
        ends_task(peer)
    if reply is None:
        peer.logs("message=asking id=que_1 questions=1")
    else:
        peer.asks(QUESTION)
        peer.replied("s2-1", **reply)
    says_text(peer, "The answer.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    server_is_gone(peer)
    assert (peer.conversation.ended(0).outcome, peer.conversation.ended(0).result) == (AttemptOutcome.SUCCESS, "The answer.")
