"""Text that is streamed again after a broken stream."""

from __future__ import annotations

from executor.adapters.repeats import Repeats, Shown


def said(repeats: Repeats, id: str, *parts: str) -> list[Shown]:
    return [shown for part in parts for shown in repeats.delta(id, part)]


def test_what_is_said_once_is_shown_as_it_comes() -> None:
    repeats = Repeats()
    assert said(repeats, "a", "x", "y") == [Shown("delta", "a", "x"), Shown("delta", "a", "y")]
    assert repeats.completed("a", "xy") == [Shown("completed", "a", "xy")]


def test_a_repetition_is_silent_and_goes_on_as_the_same_message() -> None:
    repeats = Repeats()
    said(repeats, "a", "The ", "ans")
    repeats.broken()
    assert said(repeats, "b", "Th", "e answ", "er") == [Shown("delta", "a", "w"), Shown("delta", "a", "er")]
    assert repeats.completed("b", "The answer") == [Shown("completed", "a", "The answer")]


def test_a_stream_that_breaks_again_and_again_is_shown_once() -> None:
    repeats = Repeats()
    shown = said(repeats, "a", "one ", "two")
    for id in ("b", "c", "d"):
        repeats.broken()
        shown += said(repeats, id, "one ", "two")
    assert shown == [Shown("delta", "a", "one "), Shown("delta", "a", "two")]


def test_a_break_in_the_middle_of_a_repetition_forgets_nothing() -> None:
    repeats = Repeats()
    said(repeats, "a", "one two three")
    repeats.broken()
    assert said(repeats, "b", "one ") == []
    repeats.broken()
    assert said(repeats, "c", "one two three four") == [Shown("delta", "a", " four")]


def test_another_answer_is_a_new_message_and_the_broken_one_is_given_up() -> None:
    repeats = Repeats()
    said(repeats, "a", "The answer")
    repeats.broken()
    assert said(repeats, "b", "The ", "question", "!") == [
        Shown("given_up", "a"),
        Shown("delta", "b", "The question"),
        Shown("delta", "b", "!"),
    ]
    assert repeats.completed("b", "The question!") == [Shown("completed", "b", "The question!")]


def test_a_shorter_answer_than_the_broken_one_is_a_new_message() -> None:
    repeats = Repeats()
    said(repeats, "a", "The answer is")
    repeats.broken()
    assert said(repeats, "b", "The answer") == []
    assert repeats.completed("b", "The answer") == [Shown("given_up", "a"), Shown("completed", "b", "The answer")]


def test_a_message_that_was_whole_before_the_break_is_not_completed_twice() -> None:
    repeats = Repeats()
    said(repeats, "a", "done")
    repeats.completed("a", "done")
    repeats.broken()
    assert said(repeats, "b", "do", "ne") == []
    assert repeats.completed("b", "done") == []
    assert said(repeats, "c", "more") == [Shown("delta", "c", "more")]


def test_a_whole_message_that_comes_back_longer_is_another_message() -> None:
    repeats = Repeats()
    repeats.completed("a", "done")
    repeats.broken()
    assert said(repeats, "b", "done", " twice") == [Shown("delta", "b", "done twice")]


def test_several_messages_are_repeated_in_their_order() -> None:
    repeats = Repeats()
    said(repeats, "a", "one")
    said(repeats, "b", "two")
    repeats.broken()
    assert said(repeats, "c", "one") + said(repeats, "d", "two", "!") == [Shown("delta", "b", "!")]


def test_after_a_whole_answer_the_same_words_are_news() -> None:
    repeats = Repeats()
    said(repeats, "a", "same")
    repeats.settled()
    repeats.broken()
    assert said(repeats, "b", "same") == [Shown("delta", "b", "same")]
