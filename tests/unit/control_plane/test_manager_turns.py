"""Among managers that all will do, whose turn it is."""

from __future__ import annotations

import pytest

from control_plane.manager_turns import LEFT_OUT_SECONDS, ManagerTurns


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_manager_gets_its_share_and_every_call_knows_them_all(clock: Clock, count: int) -> None:
    turns = ManagerTurns(count, clock)
    calls = [list(turns) for _ in range(6 * count)]
    assert [call[0] for call in calls] == [each for _ in range(6) for each in range(count)]
    assert all(sorted(call) == list(range(count)) for call in calls)


def test_who_failed_is_left_out_while_others_will_do_but_stays_the_last_resort(clock: Clock) -> None:
    turns = ManagerTurns(3, clock)
    turns.failed(1)
    clock.now += LEFT_OUT_SECONDS / 2
    calls = [list(turns) for _ in range(6)]
    assert {call[0] for call in calls} == {0, 2}
    assert {call[-1] for call in calls} == {1}


def test_after_a_while_one_call_tries_who_failed_and_no_other_does_until_it_answers(clock: Clock) -> None:
    turns = ManagerTurns(2, clock)
    turns.failed(0)
    clock.now += LEFT_OUT_SECONDS
    assert [next(iter(turns)) for _ in range(6)].count(0) == 1
    turns.answered(0)
    assert [next(iter(turns)) for _ in range(6)].count(0) == 3


def test_where_all_failed_the_one_that_failed_first_is_tried_first(clock: Clock) -> None:
    turns = ManagerTurns(3, clock)
    for manager in (2, 0, 1):
        turns.failed(manager)
        clock.now += 0.1
    assert list(turns) == [2, 0, 1]
