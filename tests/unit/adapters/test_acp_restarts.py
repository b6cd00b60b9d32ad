"""Text that begins anew without a word: what is shown of it, and when."""

from __future__ import annotations

import pytest

from executor.adapters.restarts import MAX_RESTARTS, Restarts
from shared.contracts.events import MessageCompleted, MessageDelta, RetryScheduled
from shared.contracts.providers import Provider
from tests.unit.adapters.test_acp_conversation import Peer, logged


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


FIRST = ["partial ", "answer "]


@pytest.mark.parametrize("early", range(1, 3))
@pytest.mark.parametrize(("rest", "expected"), [(["made whole"], "partial answer made whole"), ([], "partial answer ")])
def test_a_beginning_anew_that_is_told_after_its_first_pieces_is_counted_once(early: int, rest: list[str], expected: str) -> None:
    restarts = Restarts()
    news = [restarts.piece(each) for each in [*FIRST, *FIRST[:early]]]
    assert restarts.told()
    news += [restarts.piece(each) for each in [*FIRST[early:], *rest]]
    last = restarts.ended(well=bool(rest))
    assert "".join(piece for each in (*news, last) for piece in each.pieces) == expected
    assert sum(each.restarts for each in (*news, last)) == 0


def test_an_answer_begun_anew_that_says_something_else_is_shown_by_itself() -> None:
    restarts = Restarts()
    held = [restarts.piece(each) for each in [*FIRST, "partial "]][-1]
    assert restarts.told()
    news = restarts.piece("success")
    assert (held.pieces, news.pieces, news.is_anew) == ([], ["partial ", "success"], True)


def test_an_answer_begun_anew_twice_and_ended_well_is_its_last_one() -> None:
    restarts = Restarts()
    for each in [*FIRST, *FIRST]:
        restarts.piece(each)
    assert restarts.told()
    for each in FIRST:
        restarts.piece(each)
    assert restarts.told()
    news = restarts.ended(well=True)
    assert (news.pieces, news.is_anew) == (FIRST, True)


def test_what_is_told_before_its_first_piece_is_about_what_comes() -> None:
    restarts = Restarts()
    restarts.piece("partial ")
    assert not restarts.told()


@pytest.mark.parametrize("late", range(3))
@pytest.mark.parametrize("later", range(3))
@pytest.mark.parametrize("rest", ["made whole", "made of ", None])
def test_a_retry_whose_line_comes_after_its_first_words_is_told_once_and_its_text_shown_once(
    late: int, later: int, rest: str | None
) -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    logged(peer, "INFO", "process")
    logged(peer, "INFO", "stream")
    for delay in (None, late, later):
        for place, piece in enumerate(FIRST):
            if delay == place:
                logged(peer, "INFO", "stream")
            peer.says_text(piece)
        if delay == len(FIRST):
            logged(peer, "INFO", "stream")
    if rest is not None:
        peer.says_text(rest)
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    text = "partial answer " + (rest or "")
    assert [each.text for each in peer.emitted(MessageCompleted)] == [text]
    assert "".join(each.text for each in peer.emitted(MessageDelta)) == text
    assert [each.by for each in peer.emitted(RetryScheduled)] == ["engine"] * 2


@pytest.mark.parametrize("late", range(2))
def test_a_retry_that_says_something_else_is_the_answer_also_when_its_line_comes_late(late: int) -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    logged(peer, "INFO", "stream")
    for place, piece in enumerate([*FIRST, *FIRST[:late], "success"]):
        if place == len(FIRST) + late:
            logged(peer, "INFO", "stream")
        peer.says_text(piece)
    peer.answers("session/prompt", {"stopReason": "end_turn"})
    assert peer.conversation.ended(0).result == "".join([*FIRST[:late], "success"])
