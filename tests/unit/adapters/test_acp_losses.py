"""What an ACP engine cannot be told, or does not tell whole: nothing is lost in silence, and nobody waits for ever."""

from __future__ import annotations

import pytest

from executor.adapters.base import STDOUT
from shared.contracts.events import Diagnostic
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import Provider
from tests.unit.adapters.test_acp_conversation import ACP, Peer

FAILED = {"code": 500, "message": "Internal error"}


def undelivered(peer: Peer) -> list[str]:
    peer.steps += peer.conversation.end_of(STDOUT)
    return [each.message for each in peer.emitted(Diagnostic) if each.code == "message_undeliverable"]


@pytest.mark.parametrize("provider", ACP)
def test_messages_of_a_prompt_that_failed_are_told_as_undelivered(provider: Provider) -> None:
    peer = Peer(provider).prompted()
    for each in ("and then", "and this"):
        peer.conversation.message(each)
    peer.answers("session/prompt", error=FAILED)
    assert undelivered(peer) == [f"2 further message(s) had not been taken when {provider} ended"]


def test_a_message_is_told_as_undelivered_when_the_engine_dies_or_is_stopped() -> None:
    died, stopped = Peer(Provider.GEMINI_CLI).prompted(), Peer(Provider.QWEN_CODE).prompted()
    for peer in (died, stopped):
        peer.conversation.message("and then")
    stopped.steps += stopped.conversation.interrupt()
    stopped.answers("session/prompt", {"stopReason": "cancelled"})
    assert [len(undelivered(each)) for each in (died, stopped)] == [1, 1]


def test_a_message_that_became_a_prompt_and_a_word_of_ours_are_not_undelivered() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    peer.conversation.message("and then")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.prompts() == ["hi", "and then"]
    peer.steps += peer.conversation.answer(peer.asks(), Reply(decision=Decision.DECLINE))
    assert undelivered(peer) == []
