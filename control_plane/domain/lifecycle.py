"""The life of a run. Everything that decides a run's next status is in this file.

Rule 1. A new behaviour is a new row of ``TRANSITIONS``, never an ``if`` elsewhere.
Rule 2. This file knows no clock, no database and no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from shared.contracts.events import AttemptOutcome
from shared.contracts.runs import TERMINAL, RunStatus


class Signal(StrEnum):
    # from the control plane
    ATTEMPT_ACCEPTED = "attempt_accepted"
    START_REFUSED = "start_refused"
    ATTEMPT_LOST = "attempt_lost"
    RETRY_SCHEDULED = "retry_scheduled"
    GIVEN_UP = "given_up"
    STOP_REQUESTED = "stop_requested"
    STOP_UNCLAIMED = "stop_unclaimed"
    STOPPED = "stopped"
    OVERDUE = "overdue"
    EXPIRED = "expired"
    # from the engine, by the executor
    ASKED = "asked"
    ANSWERED = "answered"
    ENGINE_SUCCEEDED = "engine_succeeded"
    ENGINE_FAILED = "engine_failed"
    ENGINE_TIMED_OUT = "engine_timed_out"
    ENGINE_CANCELED = "engine_canceled"
    PARKED = "parked"


Q, R, W, P = RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_USER, RunStatus.STOPPING

TRANSITIONS: Mapping[tuple[RunStatus, Signal], RunStatus] = MappingProxyType(
    {
        # a claim takes the lease only; running begins when an executor has accepted
        (Q, Signal.ATTEMPT_ACCEPTED): R,
        (Q, Signal.START_REFUSED): RunStatus.ERROR,
        (Q, Signal.ATTEMPT_LOST): Q,  # its start was never confirmed: the next attempt tries again
        (Q, Signal.RETRY_SCHEDULED): Q,  # refused for now: another attempt follows
        (Q, Signal.GIVEN_UP): RunStatus.ERROR,
        (Q, Signal.STOP_UNCLAIMED): RunStatus.CANCELED,
        (Q, Signal.STOP_REQUESTED): P,  # claimed: its start may be on the way
        (Q, Signal.STOPPED): RunStatus.CANCELED,
        # an engine works
        (R, Signal.ATTEMPT_ACCEPTED): R,  # a later attempt
        (R, Signal.START_REFUSED): RunStatus.ERROR,
        (R, Signal.ATTEMPT_LOST): R,  # a new attempt, not a step back
        (R, Signal.PARKED): R,  # nobody is asked any more: likewise
        (R, Signal.RETRY_SCHEDULED): R,  # likewise, after a wait
        (R, Signal.GIVEN_UP): RunStatus.ERROR,
        (R, Signal.ASKED): W,
        (R, Signal.ANSWERED): R,
        (R, Signal.STOP_REQUESTED): P,
        (R, Signal.STOP_UNCLAIMED): RunStatus.CANCELED,
        (R, Signal.STOPPED): RunStatus.CANCELED,
        # an engine waits for a person
        (W, Signal.ATTEMPT_ACCEPTED): R,  # parked: the reply starts the next attempt
        (W, Signal.START_REFUSED): RunStatus.ERROR,
        (W, Signal.ATTEMPT_LOST): W,  # parked: the question stays open
        (W, Signal.PARKED): W,  # on purpose: likewise
        (W, Signal.RETRY_SCHEDULED): R,  # its questions died with the engine that failed; the next one asks again
        (W, Signal.GIVEN_UP): RunStatus.ERROR,
        (W, Signal.ASKED): W,
        (W, Signal.ANSWERED): R,
        (W, Signal.STOP_REQUESTED): P,
        (W, Signal.STOP_UNCLAIMED): RunStatus.CANCELED,
        (W, Signal.STOPPED): RunStatus.CANCELED,
        # someone asked for the end; work finished in time still counts
        (P, Signal.ATTEMPT_ACCEPTED): P,
        (P, Signal.START_REFUSED): RunStatus.CANCELED,
        (P, Signal.ATTEMPT_LOST): RunStatus.CANCELED,
        (P, Signal.PARKED): RunStatus.CANCELED,  # its tree is gone
        (P, Signal.RETRY_SCHEDULED): P,  # never asked for: who wants the end wants no other attempt
        (P, Signal.GIVEN_UP): RunStatus.CANCELED,
        (P, Signal.ASKED): P,
        (P, Signal.ANSWERED): P,
        (P, Signal.STOP_REQUESTED): P,
        (P, Signal.STOP_UNCLAIMED): RunStatus.CANCELED,
        (P, Signal.STOPPED): RunStatus.CANCELED,
        # a stop of our own has taken effect: the run ends as what it was stopped for
        **{(status, Signal.OVERDUE): RunStatus.TIMEOUT for status in (Q, R, W, P)},
        **{(status, Signal.EXPIRED): RunStatus.ERROR for status in (Q, R, W, P)},
        # the engine's end, while it is alive
        **{(status, Signal.ENGINE_SUCCEEDED): RunStatus.SUCCESS for status in (R, W, P)},
        **{(status, Signal.ENGINE_FAILED): RunStatus.ERROR for status in (R, W, P)},
        **{(status, Signal.ENGINE_TIMED_OUT): RunStatus.TIMEOUT for status in (R, W, P)},
        **{(status, Signal.ENGINE_CANCELED): RunStatus.CANCELED for status in (R, W, P)},
    }
)

SIGNAL_OF_OUTCOME: Mapping[AttemptOutcome, Signal] = MappingProxyType(
    {
        AttemptOutcome.SUCCESS: Signal.ENGINE_SUCCEEDED,
        AttemptOutcome.ERROR: Signal.ENGINE_FAILED,
        AttemptOutcome.TIMEOUT: Signal.ENGINE_TIMED_OUT,
        AttemptOutcome.CANCELED: Signal.ENGINE_CANCELED,
        AttemptOutcome.LOST: Signal.ATTEMPT_LOST,
        AttemptOutcome.PARKED: Signal.PARKED,
    }
)


class IllegalTransition(Exception):
    """A signal that makes no sense in a status: a bug of ours, never of an engine."""

    def __init__(self, status: RunStatus, signal: Signal) -> None:
        super().__init__(f"a run that is {status} cannot be {signal}")


def advance(status: RunStatus, signal: Signal) -> RunStatus:
    """The next status. A terminal run absorbs every signal; that is what makes retries safe."""
    if status in TERMINAL:
        return status
    try:
        return TRANSITIONS[status, signal]
    except KeyError:
        raise IllegalTransition(status, signal) from None
