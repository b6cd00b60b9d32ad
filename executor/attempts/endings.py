"""How an attempt's end is told: what the engine reached, or why we ended it. One table decides.

A success the engine reached before our stop took effect is a success; otherwise our reason stands above what the engine's
death looked like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from executor.adapters.base import Outcome
from executor.attempts.limits import Limit
from shared.contracts.events import AttemptOutcome, Kind
from shared.contracts.provider_runs import Timeouts
from shared.errors import ErrorCode

JOURNAL_QUOTA_FACTOR = 4


class Cause(Enum):
    """Why we end an attempt that would otherwise go on. The first one stands."""

    STOPPED = auto()
    PARKED = auto()
    RUN_TIMEOUT = auto()
    IDLE_TIMEOUT = auto()
    LEASH_LAPSED = auto()
    SUPERSEDED = auto()
    SHUTTING_DOWN = auto()
    OUTPUT_LIMIT = auto()
    INPUT_STUCK = auto()
    UNREADABLE = auto()
    DISK_FULL = auto()
    ADAPTER_FAILED = auto()
    NOT_STARTED = auto()
    NO_WORKSPACE = auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """``asks_first``: the engine is asked to interrupt itself. ``longest_grace`` seconds between TERM and KILL; 0: no TERM."""

    outcome: AttemptOutcome
    code: ErrorCode | None
    message: str | None
    asks_first: bool = False
    longest_grace: float = 60.0


ENDINGS: Mapping[Cause, Ending] = MappingProxyType({
    # someone's wish
    Cause.STOPPED: Ending(AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED, "the attempt was stopped", asks_first=True),
    # it waits for a person, without a process until the reply
    Cause.PARKED: Ending(AttemptOutcome.PARKED, None, None),
    # time
    Cause.RUN_TIMEOUT: Ending(AttemptOutcome.TIMEOUT, ErrorCode.TIMEOUT, "the run timeout passed", asks_first=True),
    Cause.IDLE_TIMEOUT: Ending(AttemptOutcome.TIMEOUT, ErrorCode.IDLE_TIMEOUT, "the engine was silent", asks_first=True),
    # the attempt is no longer ours to run
    Cause.LEASH_LAPSED: Ending(AttemptOutcome.LOST, ErrorCode.EXECUTOR_LOST, "nobody renewed the leash", longest_grace=0),
    Cause.SUPERSEDED: Ending(AttemptOutcome.LOST, ErrorCode.EXECUTOR_LOST, "a later attempt took its place", longest_grace=2),
    Cause.SHUTTING_DOWN: Ending(AttemptOutcome.LOST, ErrorCode.EXECUTOR_LOST, "the executor is stopping", longest_grace=1.5),
    # it cannot go on
    Cause.OUTPUT_LIMIT: Ending(AttemptOutcome.ERROR, ErrorCode.OUTPUT_LIMIT, "the engine printed too much", longest_grace=1),
    Cause.INPUT_STUCK: Ending(AttemptOutcome.ERROR, ErrorCode.ENGINE_PROTOCOL_ERROR, "the engine does not read its input"),
    Cause.UNREADABLE: Ending(AttemptOutcome.ERROR, ErrorCode.ENGINE_PROTOCOL_ERROR, "the engine said what cannot be read"),
    Cause.DISK_FULL: Ending(AttemptOutcome.ERROR, ErrorCode.WORKSPACE_ERROR, "the executor's disk refused a write"),
    Cause.ADAPTER_FAILED: Ending(AttemptOutcome.ERROR, ErrorCode.INTERNAL, "the adapter failed"),
    Cause.NOT_STARTED: Ending(AttemptOutcome.ERROR, ErrorCode.ENGINE_START_FAILED, "the engine did not start"),
    Cause.NO_WORKSPACE: Ending(AttemptOutcome.ERROR, ErrorCode.WORKSPACE_ERROR, "the workspace could not be made"),
})  # fmt: skip


def decided(cause: Cause | None, detail: str, engine: Outcome) -> Outcome:
    """The attempt's outcome. ``detail`` says more about ``cause``, and stands in for its usual message."""
    if cause is None or engine.outcome is AttemptOutcome.SUCCESS:
        return engine
    ending = ENDINGS[cause]
    return Outcome(ending.outcome, ending.code, detail or ending.message, engine.result, engine.usage)


def passed_limit(limit: Limit, given: Timeouts, printed_bytes: int, last: Kind | None) -> tuple[Cause, str]:
    """Why an attempt ends that a limit has passed for, and what people are told of it."""
    match limit:
        case Limit.RUN:
            return Cause.RUN_TIMEOUT, f"the run took longer than {given.run_ms} ms ({given.rule})"
        case Limit.INPUT:
            return Cause.INPUT_STUCK, ""
        case Limit.FIRST_EVENT:
            printed = f"it printed {printed_bytes} bytes" if printed_bytes else "it printed nothing"
            return Cause.IDLE_TIMEOUT, f"no event within {given.first_event_ms} ms of its start; {printed}"
        case Limit.IDLE:
            return Cause.IDLE_TIMEOUT, f"no output for {given.idle_ms} ms; the last event was {last or 'its start'}"


def passed_quota(quota_bytes: int, printed_bytes: int, journal_bytes: int) -> str | None:
    """What people are told of an engine that printed too much; None: it did not.

    Too much of its own bytes, or of what its lines became: a flood of short ones fills the journal long before the quota.
    """
    if printed_bytes > quota_bytes:
        return f"the engine printed more than {quota_bytes} bytes"
    most = JOURNAL_QUOTA_FACTOR * quota_bytes
    if journal_bytes > most:
        return f"the journal grew beyond {most} bytes, the limit for many short lines; the engine printed {printed_bytes}"
    return None
