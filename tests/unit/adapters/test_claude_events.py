"""What Claude Code tells twice or not at all: streams that break, answers that come in one piece, tokens."""

from __future__ import annotations

from typing import Any

from executor.adapters.base import Conversation
from tests.unit.adapters.claude_lines import (
    BLOCK,
    STOP,
    begins,
    called,
    delta,
    emitted,
    feed,
    gave,
    result,
    retry,
    said,
    streamed,
    working,
)

ACCOUNT = {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 2, "cacheCreationInputTokens": 1}


def told(claude: Conversation, *lines: Any) -> list[tuple[str, Any]]:
    """Messages only."""
    return [(kind, data.get("text")) for kind, data in emitted(feed(claude, *lines)) if kind.startswith("message")]


def test_an_answer_that_is_begun_anew_without_a_word_is_shown_once() -> None:
    claude = working()
    told(claude, *streamed(begins("m1"), BLOCK, delta("one "), delta("two ")))
    again = emitted(feed(claude, *streamed(begins("m2"), BLOCK, delta("one "), delta("two three"), delta("."))))
    assert again == [("message.delta", {"messageId": "m1-0", "text": text}) for text in ("three", ".")]
    assert told(claude, said("one two three.", "m2"), result("one two three.")) == [("message.completed", "one two three.")]


def test_an_answer_that_differs_after_a_retry_is_a_new_message() -> None:
    claude = working()
    feed(claude, *streamed(begins("m1"), BLOCK, delta("one ")), retry(error_status=None))
    again = emitted(feed(claude, *streamed(begins("m2"), BLOCK, delta("other"))))
    assert [kind for kind, _ in again] == ["diagnostic", "message.delta"]
    assert again[0][1]["code"] == "message_abandoned"
    assert again[1][1] == {"messageId": "m2-0", "text": "other"}


def test_what_was_said_before_the_answer_that_broke_may_be_said_again() -> None:
    claude = working()
    first = [*streamed(begins("m1"), BLOCK, delta("ok")), said("ok", "m1"), *streamed(STOP)]
    assert told(claude, *first) == [("message.delta", "ok")]
    broken = [*streamed(begins("m2"), BLOCK), retry(error_status=None)]
    assert told(claude, *broken) == [("message.completed", "ok")]
    assert told(claude, *streamed(begins("m3"), BLOCK, delta("ok"))) == [("message.delta", "ok")]


def test_what_came_in_one_piece_before_a_tool_may_be_said_again() -> None:
    claude = working()
    feed(claude, said("ok", "m1"), called("t1", "Read", {}), gave("t1", "file"))
    feed(claude, *streamed(begins("m2"), BLOCK), retry(error_status=None))
    assert told(claude, *streamed(begins("m3"), BLOCK, delta("ok"))) == [("message.delta", "ok")]


def test_a_connection_that_broke_after_the_first_word_is_the_models_failure_until_an_answer_is_whole() -> None:
    claude = working()
    lost = retry(error_status=None, error="unknown")
    feed(claude, *streamed(begins("m1"), BLOCK, delta("one")))
    assert [data["errorCode"] for _, data in emitted(feed(claude, lost, lost | {"attempt": 2}))] == ["model_unavailable"] * 2
    feed(claude, *streamed(begins("m2"), BLOCK, delta("one"), STOP))
    assert [data["errorCode"] for _, data in emitted(feed(claude, lost))] == ["network_error"]


def test_the_blocks_of_an_answer_in_one_piece_are_messages_of_their_own() -> None:
    content = [{"type": "text", "text": "one"}, {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "two"}]
    claude = working()
    whole = {"type": "assistant", "message": {"id": "m1", "content": content}}
    shown = emitted(feed(claude, whole, result("two")))
    assert {data["messageId"] for kind, data in shown if kind == "message.completed"} == {"m1-0", "m1-2"}


def test_tokens_are_counted_as_they_come_with_those_from_and_to_the_cache() -> None:
    claude = working()
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 3}
    ends = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    [(kind, data)] = emitted(feed(claude, *streamed(begins("m1", **usage), ends)))
    assert (kind, data["usage"]) == ("usage.updated", {"inputTokens": 18, "cachedInputTokens": 3, "outputTokens": 7})


def test_the_engines_own_account_is_taken_where_it_says_more() -> None:
    claude = working()
    feed(claude, *streamed(begins("m1", input_tokens=4)))
    feed(claude, result("ok", modelUsage={"a": ACCOUNT, "b": ACCOUNT}, total_cost_usd=0.5))
    usage = claude.ended(0).usage
    assert usage is not None
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.cost_usd) == (26, 4, 10, 0.5)


def test_tokens_of_an_answer_that_was_cut_are_not_forgotten() -> None:
    claude = working()
    feed(claude, *streamed(begins("m1", input_tokens=100)), result("ok", modelUsage={"a": ACCOUNT}, total_cost_usd=0.5))
    usage = claude.ended(0).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (100, 5)


def test_a_result_without_an_account_keeps_what_was_counted() -> None:
    claude = working()
    feed(claude, *streamed(begins("m1", input_tokens=100)), result(None, is_error=True, subtype="error_during_execution"))
    usage = claude.ended(1).usage
    assert usage is not None
    assert (usage.input_tokens, usage.cost_usd) == (100, None)
