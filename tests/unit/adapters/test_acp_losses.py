"""What an ACP engine cannot be told, or does not tell whole: nothing is lost in silence, and nobody waits for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters.base import STDERR, STDOUT, CloseInput
from executor.adapters.framing import MAX_LINE_BYTES
from shared.contracts.events import Diagnostic, InteractionResolved, RawStdout
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import Provider
from shared.errors import ErrorCode
from tests.unit.adapters.test_acp_conversation import ACP, MUCH_LATER, REFUSED, TRIED, Peer, says_in_log

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


# ---- questions ----


def withdrawn(peer: Peer) -> list[str]:
    return [each.question_id for each in peer.emitted(InteractionResolved)]


@pytest.mark.parametrize("provider", ACP)
def test_a_reply_that_stops_withdraws_what_else_was_asked(provider: Provider) -> None:
    peer = Peer(provider).prompted()
    first, second = peer.asks(70), peer.asks(71, toolCallId="t2")
    peer.steps += peer.conversation.answer(first, Reply(decision=Decision.DECLINE_AND_STOP))
    assert withdrawn(peer) == [second]
    assert [each["id"] for each in peer.sent if "result" in each] == [70, 71]
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert withdrawn(peer) == [second]


def test_what_the_runner_stops_it_says_itself() -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    peer.asks(70)
    peer.steps += peer.conversation.interrupt()
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert withdrawn(peer) == []


def test_a_question_is_withdrawn_when_the_model_is_given_up() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    meta = {"toolName": "ask_user_question", "qwenInteractionKind": "user_question"}
    question_id = peer.asks(rawInput={"questions": [{"question": "Which?"}]}, kind="think", _meta=meta)
    says_in_log(peer, REFUSED, TRIED.format(1, MUCH_LATER))
    assert (peer.sent[-2]["method"], withdrawn(peer)) == ("session/cancel", [question_id])


def test_two_questions_under_one_id_are_answered_each_in_its_own_way() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    permission = peer.asks(70)
    meta = {"toolName": "ask_user_question", "qwenInteractionKind": "user_question"}
    question = peer.asks(70, toolCallId="t2", rawInput={"questions": [{"question": "Which?"}]}, _meta=meta)
    peer.steps += peer.conversation.answer(permission, Reply(decision=Decision.DECLINE))
    assert peer.sent[-1]["result"] == {"outcome": {"outcome": "selected", "optionId": "no"}}
    peer.steps += peer.conversation.answer(question, Reply(answer="This"))
    assert peer.sent[-1]["result"]["answers"] == {"0": "This"}


# ---- lines that are not read ----


def line(padding: str, **message: Any) -> bytes:
    whole = {"jsonrpc": "2.0"} | message | {"padding": "QQ"}
    return json.dumps(whole, separators=(",", ":")).replace('"QQ"', padding).encode() + b"\n"


TOO_LONG, TOO_DEEP = '"' + "x" * MAX_LINE_BYTES + '"', "[" * 3000 + "]" * 3000


@pytest.mark.parametrize("padding", [TOO_LONG, TOO_DEEP], ids=["long", "deep"])
@pytest.mark.parametrize("id", [70, "r-70"])
def test_a_request_that_is_not_read_is_answered(padding: str, id: int | str) -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    peer.steps += peer.conversation.feed(STDOUT, line(padding, id=id, method="session/request_permission", params={}))
    assert (peer.sent[-1]["id"], peer.sent[-1]["error"]["code"]) == (id, -32601)
    assert [each.code for each in peer.emitted(Diagnostic)] + peer.emitted(RawStdout) != []


@pytest.mark.parametrize("padding", [TOO_LONG, TOO_DEEP], ids=["long", "deep"])
def test_an_answer_that_is_not_read_ends_the_run_instead_of_waiting_for_ever(padding: str) -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    number = peer.sent[-1]["id"]
    peer.steps += peer.conversation.feed(STDOUT, line(padding, id=number, result={"stopReason": "end_turn"}))
    assert isinstance(peer.steps[-1], CloseInput)
    assert peer.conversation.ended(0).error_code is ErrorCode.ENGINE_PROTOCOL_ERROR


def test_a_notice_that_is_not_read_and_an_answer_to_nothing_end_nothing() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    for each in (line(TOO_LONG, method="session/update", params={}), line(TOO_LONG, id=4711, result={})):
        peer.steps += peer.conversation.feed(STDOUT, each)
    peer.steps += peer.conversation.feed(STDERR, line(TOO_LONG, id=peer.sent[-1]["id"], result={}))
    assert len(peer.emitted(Diagnostic)) == 3
    peer.says_text("Well.")
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.ended(0).result == "Well."
