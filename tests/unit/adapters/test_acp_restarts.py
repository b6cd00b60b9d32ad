"""Text that begins anew without a word: what is shown of it, and when."""

from __future__ import annotations

import pytest

from executor.adapters.restarts import MAX_RESTARTS, Restarts


def shown(pieces: list[str], well: bool) -> tuple[str, int]:
    """All that is shown of these pieces, and the beginnings anew that were found."""
    restarts = Restarts()
    news = [*(restarts.piece(each) for each in pieces), restarts.ended(well)]
    return "".join(piece for each in news for piece in each.pieces), sum(each.restarts for each in news)


@pytest.mark.parametrize("times", [1, 2])
def test_text_that_goes_on_after_a_whole_repetition_is_shown_once(times: int) -> None:
    begun = ["partial ", "answer "]
    assert shown([*begun, *begun * times, "made whole"], well=True) == ("partial answer made whole", times)


@pytest.mark.parametrize(
    ("again", "restarts"), [(["partial "], 1), (["partial ", "answer "], 1), (["partial ", "answer "] * 2, 2)]
)
def test_what_is_repeated_when_the_answer_fails_is_not_shown(again: list[str], restarts: int) -> None:
    assert shown(["partial ", "answer ", *again], well=False) == ("partial answer ", restarts)


@pytest.mark.parametrize("pieces", [
    ["ha ", "ha ", "ha "],
    ["Happy birthday ", "to you,\n", "Happy birthday ", "to you,\n", "Happy birthday ", "dear all"],
    ["I will not ", "talk in class.\n"] * 20,
    ["one thing ", "and another", "one thing ", "only"],
    ["one thing ", "and another", "one thing "],
])  # fmt: skip
def test_a_good_answer_that_repeats_itself_is_shown_whole(pieces: list[str]) -> None:
    assert shown(pieces, well=True) == ("".join(pieces), 0)


def test_text_that_repeats_itself_more_often_than_engines_try_is_shown_before_its_end() -> None:
    restarts = Restarts()
    news = [restarts.piece(each) for each in ["again and ", "again "] * (MAX_RESTARTS + 3)]
    assert any(each.pieces for each in news[3:])
