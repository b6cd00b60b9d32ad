"""The table of a run's life, held against every status and every signal."""

from __future__ import annotations

import pytest

from control_plane.domain.lifecycle import SIGNAL_OF_OUTCOME, TRANSITIONS, IllegalTransition, Signal, advance
from shared.contracts.events import AttemptOutcome
from shared.contracts.runs import TERMINAL, RunStatus

ALIVE = [RunStatus.RUNNING, RunStatus.WAITING_USER, RunStatus.STOPPING]


@pytest.mark.parametrize("status", sorted(TERMINAL))
@pytest.mark.parametrize("signal", list(Signal))
def test_a_finished_run_absorbs_every_signal(status: RunStatus, signal: Signal) -> None:
    assert advance(status, signal) is status


@pytest.mark.parametrize("status", ALIVE)
@pytest.mark.parametrize("signal", sorted({Signal.ASKED, Signal.ANSWERED, *SIGNAL_OF_OUTCOME.values()}))
def test_nothing_an_engine_does_is_illegal_while_it_is_alive(status: RunStatus, signal: Signal) -> None:
    advance(status, signal)


@pytest.mark.parametrize(("status", "signal"), sorted(TRANSITIONS))
def test_no_run_goes_back_to_queued_once_it_has_left(status: RunStatus, signal: Signal) -> None:
    if status is not RunStatus.QUEUED:
        assert advance(status, signal) is not RunStatus.QUEUED


@pytest.mark.parametrize("status", [status for status in RunStatus if status not in TERMINAL])
def test_every_living_status_can_be_stopped_and_given_up(status: RunStatus) -> None:
    assert advance(status, Signal.STOP_REQUESTED) is RunStatus.STOPPING
    assert advance(status, Signal.STOP_UNCLAIMED) is RunStatus.CANCELED
    assert advance(status, Signal.GIVEN_UP) in TERMINAL


def test_an_engine_that_was_never_started_cannot_have_succeeded() -> None:
    with pytest.raises(IllegalTransition, match="queued"):
        advance(RunStatus.QUEUED, Signal.ENGINE_SUCCEEDED)


def test_work_finished_while_stopping_still_counts() -> None:
    assert advance(RunStatus.STOPPING, Signal.ENGINE_SUCCEEDED) is RunStatus.SUCCESS


def test_every_outcome_of_an_attempt_is_a_signal() -> None:
    assert set(SIGNAL_OF_OUTCOME) == set(AttemptOutcome)


@pytest.mark.parametrize("signal", list(Signal))
def test_every_signal_means_something_somewhere(signal: Signal) -> None:
    assert any(known is signal for _, known in TRANSITIONS)
