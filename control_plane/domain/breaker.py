"""When an app's runs on a provider stop being tried: the model refused its credentials, its quota or its pace too often. Pure.

One breaker per (lender of the credentials, provider). It counts, opens, lets one run at a time try, and closes when the model
has answered one. Who meets it open waits in the queue where waiting helps, and learns the same code at once where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from shared.errors import ERRORS, ErrorCode

PROBE_SECONDS = 30.0  # how long a turn to try is kept for a run; then another may have it, unless an attempt of the first works


class Meeting(StrEnum):
    """What an open breaker does to a run that is not the one that tries."""

    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Breaking:
    """``failures`` without a success between them, within ``window`` seconds, open it; it rests ``rest`` seconds, doubling."""

    failures: int
    window: float
    rest: float
    longest_rest: float
    meeting: Meeting


_C = ErrorCode
BREAKING: Mapping[ErrorCode, Breaking] = MappingProxyType({
    _C.RATE_LIMITED: Breaking(5, 60, 15, 300, Meeting.WAIT),  # it passes by itself: who waits is served
    _C.AUTH_FAILED: Breaking(3, 300, 60, 900, Meeting.REFUSE),  # somebody has to do something: who waits waits in vain
    _C.AUTH_MISSING: Breaking(3, 300, 60, 900, Meeting.REFUSE),
    _C.QUOTA_EXCEEDED: Breaking(3, 300, 60, 900, Meeting.REFUSE),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Breaker:
    """``opened_at`` None: it counts. ``try_at``: when the next run may try; ``trying``: the run that does."""

    code: ErrorCode
    failures: int
    since: datetime
    opened_at: datetime | None = None
    try_at: datetime | None = None
    trying: str | None = None
    rests: int = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    @property
    def meeting(self) -> Meeting:
        return BREAKING[self.code].meeting

    def refuses(self, now: datetime) -> bool:
        """Whether a run that comes now learns the code at once. While another one tries, and when a try is due, it does not."""
        return self.meeting is Meeting.REFUSE and self.trying is None and self.try_at is not None and now < self.try_at

    def said(self) -> str:
        """For the people whose run it keeps back."""
        return f"{self.failures} times in a row: {ERRORS[self.code].title.lower()} ({self.code})"


def after_failure(breaker: Breaker | None, code: ErrorCode, run_id: str, now: datetime, asks_ms: int | None) -> Breaker | None:
    """The breaker once a run has failed with ``code``; unchanged by what no breaker counts."""
    row = BREAKING.get(code)
    if row is None:
        return breaker
    if breaker is not None and breaker.is_open:
        return _after_a_try(breaker, row, code, run_id, now, asks_ms)
    if breaker is None or breaker.code is not code or now - breaker.since > timedelta(seconds=row.window):
        breaker = Breaker(code, 0, now)
    counted = replace(breaker, failures=breaker.failures + 1)
    if counted.failures < row.failures:
        return counted
    return replace(counted, opened_at=now, try_at=now + _rest(row, 0, asks_ms))


def _after_a_try(breaker: Breaker, row: Breaking, code: ErrorCode, run_id: str, now: datetime, asks_ms: int | None) -> Breaker:
    """The one that tried has failed, and it rests longer. Those that had begun before it opened tell nothing new."""
    failed = replace(breaker, failures=breaker.failures + 1)
    if run_id != breaker.trying:
        return failed
    rests = breaker.rests + 1
    return replace(failed, code=code, trying=None, rests=rests, try_at=now + _rest(row, rests, asks_ms))


def _rest(row: Breaking, rests: int, asks_ms: int | None) -> timedelta:
    doubled = min(row.rest * 2 ** min(rests, 16), row.longest_rest)
    return timedelta(seconds=max(doubled, min((asks_ms or 0) / 1000, row.longest_rest)))
