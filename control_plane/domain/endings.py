"""Why a run ended: what an attempt's end means for its run, and how the run's own end is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.domain.lifecycle import SIGNAL_OF_OUTCOME, Signal, advance
from control_plane.domain.retrying import Again, Failure
from shared.contracts.events import AttemptEnded, AttemptOutcome, RetryScheduled, RunStatusChanged
from shared.contracts.runs import TERMINAL, Phase, RunStatus
from shared.errors import ERRORS, ErrorCode

MAX_ERROR_MESSAGE = 4096
_PHASES = {
    RunStatus.RUNNING: Phase.WORKING,
    RunStatus.WAITING_USER: Phase.WAITING_USER,
    RunStatus.STOPPING: Phase.STOPPING,
}


@dataclass(frozen=True, slots=True)
class Ending:
    error_code: ErrorCode | None
    error_message: str | None
    exit_code: int | None


def verdict(ended: AttemptEnded, stop_reason: str | None) -> tuple[Signal, ErrorCode | None, str | None]:
    """What an attempt's end means for its run. A process we ended for a reason of our own ends the run for that reason."""
    signal = SIGNAL_OF_OUTCOME[ended.outcome]
    if ended.outcome is AttemptOutcome.CANCELED:
        return signal, ErrorCode(stop_reason or ErrorCode.USER_CANCELED), ended.error_message
    if ended.outcome is AttemptOutcome.SUCCESS:
        return signal, None, None
    fallback = ErrorCode.TIMEOUT if ended.outcome is AttemptOutcome.TIMEOUT else ErrorCode.ENGINE_EXIT_NONZERO
    return signal, ended.error_code or fallback, ended.error_message


# What cancels a run that nobody canceled: the stop was ours.
_SIGNAL_OF_OUR_STOPS = {ErrorCode.TIMEOUT: Signal.OVERDUE, ErrorCode.INTERACTION_EXPIRED: Signal.EXPIRED}


def in_truth(
    status: RunStatus, signal: Signal, stop_reason: str | None, code: ErrorCode | None
) -> tuple[Signal, ErrorCode | None]:
    """The signal and code to act upon: where a signal would cancel a run, the reason of the stop speaks instead."""
    if status in TERMINAL or advance(status, signal) is not RunStatus.CANCELED:
        return signal, code
    reason = ErrorCode(stop_reason) if stop_reason is not None else code or ErrorCode.USER_CANCELED
    return _SIGNAL_OF_OUR_STOPS.get(reason, signal), reason


def default_message(code: ErrorCode | None) -> str | None:
    return ERRORS[code].title if code is not None else None


def clean(text: str | None) -> str | None:
    """Postgres keeps no NUL in text, and a message is a line for people, not a log."""
    return text.replace("\0", "")[:MAX_ERROR_MESSAGE] if text is not None else None


def status_event(status: RunStatus, signal: Signal, ending: Ending | None, ended: AttemptEnded | None) -> RunStatusChanged:
    code = ending.error_code if ending else None
    return RunStatusChanged(
        status=status,
        phase=_PHASES.get(status),
        reason=signal,
        detail=_detail(status, ending),
        error_code=code,
        error_message=ending.error_message if ending else None,
        retryable=ERRORS[code].retryable if code else None,
        hint=ERRORS[code].hint if code else None,
        exit_code=ending.exit_code if ending else None,
        usage=ended.usage if ended else None,
        result=ended.result if ended and status is RunStatus.SUCCESS else None,
    )


def unheard(status: RunStatus, ending: Ending) -> AttemptEnded:
    """The end of an attempt whose executor did not tell it: the run ended over its head."""
    return AttemptEnded(outcome=AttemptOutcome(status.value), error_code=ending.error_code, error_message=ending.error_message)


def failed_to_start(code: ErrorCode, message: str | None) -> AttemptEnded:
    """The end of an attempt that an executor refused."""
    return AttemptEnded(outcome=AttemptOutcome.ERROR, error_code=code, error_message=message)


def scheduled(failure: Failure, following: Again, attempt: int, now: datetime) -> RetryScheduled:
    """What tells of a further attempt of ours: when, and why."""
    return RetryScheduled(
        by="runyard",
        reason=clean(failure.message) or ERRORS[failure.code].title,
        error_code=failure.code,
        attempt=attempt,
        delay_ms=following.delay_ms,
        at=now + timedelta(milliseconds=following.delay_ms),
    )


def _detail(status: RunStatus, ending: Ending | None) -> str | None:
    if ending is None:
        return None
    if ending.error_code is None or status is RunStatus.CANCELED:
        return status.value
    return f"{status.value}: {ending.error_message or ending.error_code}"
