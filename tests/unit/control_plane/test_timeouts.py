"""The limits a control plane gives an attempt, each with what set it."""

from __future__ import annotations

import pytest

from control_plane.domain.timeouts import INTERACTION_MS, LIMITS, LONGEST, limits_of
from shared.contracts.events import MAX_TIMEOUT_MS, LimitRules, Timeouts

DEFAULTS = Timeouts()


def test_what_nobody_says_is_the_default_and_called_so() -> None:
    assert limits_of({}, None, None) == DEFAULTS.model_copy(update={"interaction_ms": INTERACTION_MS})
    assert limits_of({}, None, None).rules == LimitRules()


@pytest.mark.parametrize(
    ("option", "limit"),
    [("idleTimeoutMs", "idle_ms"), ("firstEventTimeoutMs", "first_event_ms"), ("interactionTimeoutMs", "interaction_ms")],
)
def test_a_requests_option_sets_its_limit_and_is_named(option: str, limit: str) -> None:
    limits = limits_of({option: 777}, None, None)
    assert getattr(limits, limit) == 777
    assert limits.rules.model_dump() == {**LimitRules().model_dump(), limit: f"providerOptions.{option}"}
    assert limits_of({option: None}, None, None) == limits_of({}, None, None)


def test_the_first_attempt_leaves_the_run_time_to_the_manager() -> None:
    limits = limits_of({"timeoutMs": 5}, None, 9)
    assert (limits.run_ms, limits.rule, limits.app_ms) == (DEFAULTS.run_ms, "default", 9)


@pytest.mark.parametrize(("left", "run_ms"), [(1234, 1234), (0, 1)])
def test_a_later_attempt_has_what_is_left_whatever_request_and_app_say(left: int, run_ms: int) -> None:
    limits = limits_of({"timeoutMs": 5, "idleTimeoutMs": 7}, left, 9)
    assert (limits.run_ms, limits.rule, limits.app_ms, limits.idle_ms) == (run_ms, "remaining", None, 7)


def test_every_limit_has_an_upper_bound_and_no_caller_goes_beyond_a_day_of_work() -> None:
    assert LONGEST.keys() > LIMITS
    assert {LONGEST[name] for name in LONGEST.keys() - {"interactionTimeoutMs"}} == {MAX_TIMEOUT_MS}
