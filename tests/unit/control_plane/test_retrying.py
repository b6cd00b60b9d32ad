"""The table of failures that can pass: who is tried again, how often, after how long, and what a run ends with that was."""

from __future__ import annotations

import pytest

from control_plane.domain.profile import Profile, retry_policy
from control_plane.domain.retrying import (
    LONGEST_WAIT_MS,
    NEVER_BEGAN,
    RETRYING,
    Again,
    Failure,
    Policy,
    Tried,
    again,
    last_word,
)
from shared.contracts.retries import MAX_ATTEMPTS, RetryPolicy
from shared.contracts.runs import StartRun
from shared.errors import ERRORS, ErrorCode

ASKED = Policy(max_attempts=MAX_ATTEMPTS)
LIMITED = Failure(ErrorCode.RATE_LIMITED, "429")
CAN_PASS = sorted(RETRYING)


def tries(failure: Failure, policy: Policy, chance: float = 0.5) -> list[Again]:
    """All further attempts of a run that fails in the same way again and again."""
    found: list[Again] = []
    tried = Tried()
    while (following := again(failure, tried, policy, chance)) is not None:
        found.append(following)
        tried = following.tried
    return found


@pytest.mark.parametrize("code", CAN_PASS)
def test_what_is_tried_again_is_said_to_be_retryable(code: ErrorCode) -> None:
    assert ERRORS[code].retryable


@pytest.mark.parametrize("code", sorted(set(ErrorCode) - set(RETRYING)))
def test_what_cannot_pass_is_never_tried_again_whoever_asks(code: ErrorCode) -> None:
    assert again(Failure(code), Tried(), Policy(MAX_ATTEMPTS, after_side_effects=True), 0.5) is None


@pytest.mark.parametrize("code", CAN_PASS)
def test_attempts_are_bounded_by_the_class_or_by_who_asks(code: ErrorCode) -> None:
    assert len(tries(Failure(code), Policy())) == RETRYING[code].attempts - 1
    assert len(tries(Failure(code), Policy(max_attempts=4))) == 3
    assert tries(Failure(code), Policy(max_attempts=1)) == []


@pytest.mark.parametrize("code", CAN_PASS)
@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_waits_double_within_half_of_chance_up_to_their_longest(code: ErrorCode, chance: float) -> None:
    row = RETRYING[code]
    for turn, following in enumerate(tries(Failure(code), ASKED, chance)):
        whole = min(row.first_ms * 2**turn, row.longest_ms)
        assert following.delay_ms == round(whole / 2 * (1 + chance))


@pytest.mark.parametrize("chance", [0.0, 0.7, 1.0])
def test_nobody_comes_back_sooner_than_the_model_asked(chance: float) -> None:
    following = again(Failure(ErrorCode.RATE_LIMITED, asks_ms=60_000), Tried(), Policy(), chance)
    assert following is not None
    assert 60_000 <= following.delay_ms <= 60_000 + RETRYING[ErrorCode.RATE_LIMITED].first_ms


def test_a_model_that_asks_for_more_than_patience_ends_the_run_now() -> None:
    assert again(Failure(ErrorCode.RATE_LIMITED, asks_ms=LONGEST_WAIT_MS + 1), Tried(), Policy(), 0.0) is None


@pytest.mark.parametrize(("left_ms", "follows"), [(None, True), (60_000, True), (5_000, False), (0, False)])
def test_a_run_waits_for_no_attempt_it_would_have_no_time_for(left_ms: int | None, follows: bool) -> None:
    assert (again(LIMITED, Tried(active_ms_left=left_ms), Policy(), 1.0) is not None) is follows


def test_what_is_lost_without_delay_still_needs_time_left() -> None:
    assert again(Failure(ErrorCode.EXECUTOR_LOST), Tried(active_ms_left=0), Policy(), 1.0) is None


@pytest.mark.parametrize(("failure", "tried"), [
    (LIMITED, Tried(acted=True)), (Failure(ErrorCode.EXECUTOR_LOST, unheard=True), Tried()),
])  # fmt: skip
def test_after_side_effects_another_attempt_is_for_who_allows_it(failure: Failure, tried: Tried) -> None:
    assert again(failure, tried, Policy(), 0.5) is None
    allowed = again(failure, tried, Policy(after_side_effects=True), 0.5)
    assert allowed is not None
    assert not allowed.afresh


def test_what_did_nothing_begins_afresh() -> None:
    following = again(LIMITED, Tried(), Policy(after_side_effects=True), 0.5)
    assert following is not None
    assert following.afresh


@pytest.mark.parametrize("code", [code for code in CAN_PASS if RETRYING[code].is_crash])
def test_a_run_that_broke_all_its_attempts_is_poison(code: ErrorCode) -> None:
    policy, failure = Policy(max_attempts=3), Failure(code, "it broke")
    *_, last = tries(failure, policy)
    ends_as, message = last_word(failure, last.tried, policy)
    assert ends_as is ErrorCode.POISON_RUN
    assert message == f"all 3 attempts broke, the last with {code}: it broke"


NEVER_BEGUN = Failure(ErrorCode.EXECUTOR_LOST, "it was never there", never_began=True)


@pytest.mark.parametrize("policy", [Policy(), Policy(max_attempts=1)])
def test_what_its_executor_never_had_is_tried_again_within_a_bound_and_says_nothing_of_the_run(policy: Policy) -> None:
    *_, last = tries(NEVER_BEGUN, policy)
    assert last.tried == Tried(failures=NEVER_BEGAN.attempts - 1, unbegun=NEVER_BEGAN.attempts - 1)
    assert last_word(NEVER_BEGUN, last.tried, policy) == (ErrorCode.EXECUTOR_LOST, NEVER_BEGUN.message)


@pytest.mark.parametrize("code", CAN_PASS)
def test_attempts_that_never_began_take_none_of_the_others_tries_and_lengthen_none_of_their_waits(code: ErrorCode) -> None:
    failure, tried = Failure(code), Tried(failures=4, unbegun=4)
    first = again(failure, tried, Policy(max_attempts=3), 0.5)
    assert first is not None
    assert first.delay_ms == tries(failure, Policy(max_attempts=3))[0].delay_ms
    assert first.tried.unbegun == 4
    second = again(failure, first.tried, Policy(max_attempts=3), 0.5)
    assert second is not None
    assert again(failure, second.tried, Policy(max_attempts=3), 0.5) is None


def test_attempts_that_never_began_are_bounded_whatever_failed_beside_them() -> None:
    following = again(NEVER_BEGUN, Tried(failures=12, crashes=4, unbegun=8), Policy(), 1.0)
    assert following is not None
    assert following.delay_ms == NEVER_BEGAN.longest_ms
    assert again(NEVER_BEGUN, following.tried, Policy(), 1.0) is None


def test_attempts_that_never_began_make_no_run_poison_and_clear_none() -> None:
    failure = Failure(ErrorCode.EXECUTOR_LOST, "the executor ended")
    once = Policy(max_attempts=1)
    assert last_word(failure, Tried(failures=2, unbegun=2), once) == (ErrorCode.EXECUTOR_LOST, "the executor ended")
    code, message = last_word(failure, Tried(failures=4, crashes=2, unbegun=2), Policy())
    assert code is ErrorCode.POISON_RUN
    assert message == "all 3 attempts broke, the last with executor_lost: the executor ended"


@pytest.mark.parametrize(("failure", "tried", "policy"), [
    (LIMITED, Tried(failures=4), Policy()),
    (Failure(ErrorCode.ENGINE_EXIT_NONZERO), Tried(), Policy()),
    (Failure(ErrorCode.ENGINE_EXIT_NONZERO), Tried(failures=2, crashes=1), Policy(max_attempts=3)),
    (Failure(ErrorCode.EXECUTOR_LOST, unheard=True), Tried(failures=1, crashes=1), Policy()),
    (Failure(ErrorCode.AUTH_FAILED), Tried(failures=1, crashes=1), Policy(max_attempts=2)),
])  # fmt: skip
def test_any_other_end_is_told_by_its_own_code(failure: Failure, tried: Tried, policy: Policy) -> None:
    assert last_word(failure, tried, policy) == (failure.code, failure.message)


@pytest.mark.parametrize(("asked", "lent", "policy"), [
    (None, None, Policy()),
    (RetryPolicy(max_attempts=2), RetryPolicy(max_attempts=5), Policy(2)),
    (None, RetryPolicy(max_attempts=5), Policy(5)),
    (RetryPolicy(after_side_effects=True), None, Policy(None, after_side_effects=True)),
    (RetryPolicy(after_side_effects=True), RetryPolicy(after_side_effects=False), Policy()),
    (RetryPolicy(after_side_effects=False), RetryPolicy(after_side_effects=True), Policy()),
    (None, RetryPolicy(after_side_effects=True), Policy(None, after_side_effects=True)),
])  # fmt: skip
def test_request_and_profile_settle_what_a_run_allows(
    asked: RetryPolicy | None, lent: RetryPolicy | None, policy: Policy
) -> None:
    profile = Profile(app_id="shop", retry=lent) if lent is not None else None
    assert retry_policy(StartRun(prompt="hi", retry=asked), profile) == policy
