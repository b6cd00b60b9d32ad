"""When a breaker opens, rests and tries, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.domain.breaker import BREAKING, Breaker, Meeting, after_failure
from shared.errors import ErrorCode

AT = datetime(2026, 1, 2, tzinfo=UTC)
LIMITED, REFUSED = ErrorCode.RATE_LIMITED, ErrorCode.AUTH_FAILED


def failed(times: int, code: ErrorCode, apart: float = 0, breaker: Breaker | None = None) -> Breaker | None:
    for turn in range(times):
        breaker = after_failure(breaker, code, f"run_{turn}", AT + timedelta(seconds=turn * apart), None)
    return breaker


@pytest.mark.parametrize("code", sorted(BREAKING))
def test_it_opens_at_its_number_of_failures_and_not_before(code: ErrorCode) -> None:
    row = BREAKING[code]
    before, after = failed(row.failures - 1, code), failed(row.failures, code)
    assert before is not None
    assert after is not None
    assert (before.is_open, after.is_open) == (False, True)
    assert after.try_at == AT + timedelta(seconds=row.rest)


def test_failures_that_lie_too_far_apart_are_no_series() -> None:
    row = BREAKING[LIMITED]
    slow = failed(3 * row.failures, LIMITED, apart=row.window / (row.failures - 1) + 1)
    assert slow is not None
    assert not slow.is_open


def test_another_failure_begins_another_count() -> None:
    mixed = failed(1, REFUSED, breaker=failed(BREAKING[LIMITED].failures - 1, LIMITED))
    assert mixed is not None
    assert (mixed.code, mixed.failures, mixed.is_open) == (REFUSED, 1, False)


@pytest.mark.parametrize("code", [ErrorCode.NETWORK_ERROR, ErrorCode.ENGINE_EXIT_NONZERO, ErrorCode.TIMEOUT])
def test_what_says_nothing_of_credentials_or_pace_counts_nothing(code: ErrorCode) -> None:
    open_one = failed(5, LIMITED)
    assert after_failure(None, code, "run_1", AT, None) is None
    assert after_failure(open_one, code, "run_1", AT, None) is open_one


def test_only_who_tries_makes_the_rest_longer_up_to_its_longest() -> None:
    row, breaker = BREAKING[LIMITED], failed(5, LIMITED)
    assert breaker is not None
    late = after_failure(breaker, LIMITED, "run_late", AT, None)
    assert late is not None
    assert (late.failures, late.try_at) == (6, breaker.try_at)
    for turn in range(1, 9):
        trying = Breaker(LIMITED, breaker.failures, AT, AT, AT, "run_try", turn - 1)
        after = after_failure(trying, LIMITED, "run_try", AT, None)
        assert after is not None
        assert after.try_at == AT + timedelta(seconds=min(row.rest * 2**turn, row.longest_rest))
        assert after.trying is None


def test_a_model_that_names_its_time_is_left_alone_for_so_long() -> None:
    breaker = failed(4, LIMITED)
    after = after_failure(breaker, LIMITED, "run_5", AT, 120_000)
    assert after is not None
    assert after.try_at == AT + timedelta(seconds=120)


@pytest.mark.parametrize(("code", "refuses"), [(LIMITED, False), (REFUSED, True)])
def test_credentials_are_refused_at_once_and_a_pace_is_waited_for(code: ErrorCode, refuses: bool) -> None:
    breaker = failed(BREAKING[code].failures, code)
    assert breaker is not None
    assert breaker.refuses(AT) is refuses
    assert (breaker.meeting is Meeting.REFUSE) is refuses
    assert breaker.try_at is not None
    assert not breaker.refuses(breaker.try_at)


def test_while_one_tries_nobody_is_refused() -> None:
    assert not Breaker(REFUSED, 3, AT, AT, AT + timedelta(minutes=1), "run_try").refuses(AT)
