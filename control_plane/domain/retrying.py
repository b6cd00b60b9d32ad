"""Whether a failed attempt is followed by another one of the same run, and after how long. One table of classes of failure.

Rule 1. What can pass is a row of ``RETRYING``; what is no row ends the run, whoever asks.
Rule 2. This file rolls no dice: the chance that spreads the waits comes in with the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shared.errors import ErrorCode

LONGEST_WAIT_MS = 15 * 60_000
# A lost attempt that has told no more than that it began and ended has done nothing: of any other nobody knows.
SILENT_CURSOR = 2


@dataclass(frozen=True, slots=True)
class Retrying:
    """One class of failure that can pass.

    ``attempts``: how many a run has in all where it does not say; 1: another one is made for who asks for it.
    ``first_ms`` doubles with every try up to ``longest_ms``. ``is_crash``: something of ours or the engine's broke under it.
    """

    attempts: int
    first_ms: int
    longest_ms: int
    is_crash: bool = False


_C = ErrorCode
RETRYING: Mapping[ErrorCode, Retrying] = MappingProxyType({
    # the model's side: it says itself that later is better
    _C.RATE_LIMITED: Retrying(5, 5_000, 300_000),
    _C.MODEL_UNAVAILABLE: Retrying(4, 2_000, 60_000),
    _C.NETWORK_ERROR: Retrying(4, 2_000, 60_000),
    # our side. A loss is certain only after a leash: longer than any wait, so that the next attempt begins at once
    _C.EXECUTOR_LOST: Retrying(3, 0, 0, is_crash=True),
    _C.ENGINE_START_FAILED: Retrying(3, 1_000, 30_000, is_crash=True),
    # mostly the request's own doing: another attempt is for who asks for it
    _C.ENGINE_EXIT_NONZERO: Retrying(1, 1_000, 30_000, is_crash=True),
    _C.ENGINE_OOM: Retrying(1, 5_000, 60_000, is_crash=True),
    _C.ENGINE_PROTOCOL_ERROR: Retrying(1, 1_000, 30_000, is_crash=True),
    _C.ENGINE_NO_OUTPUT: Retrying(1, 1_000, 30_000, is_crash=True),
    _C.IDLE_TIMEOUT: Retrying(1, 1_000, 30_000),
    _C.OUTPUT_INVALID: Retrying(1, 0, 0),
    _C.WORKSPACE_ERROR: Retrying(1, 5_000, 60_000),
})  # fmt: skip
# A loss of what certainly never began says nothing of the run, however few attempts that is to have. It ends all the same.
NEVER_BEGAN = Retrying(10, 250, 5_000)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run or its profile says of retries. ``max_attempts`` None: as many as the class of the failure has."""

    max_attempts: int | None = None
    after_side_effects: bool = False


@dataclass(frozen=True, slots=True)
class Tried:
    """What a run has behind it. ``failures`` are attempts that another one followed, ``crashes`` those of them that broke.

    ``unbegun`` are those of them that never began. ``acted``: one of them started a tool or asked a person. ``active_ms_left``:
    None before the first one began.
    """

    failures: int = 0
    crashes: int = 0
    unbegun: int = 0
    acted: bool = False
    active_ms_left: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed. ``unheard``: it may have done more than it told. ``asks_ms``: how long the model asks to wait.

    ``never_began``: its executor never had it, and never will.
    """

    code: ErrorCode
    message: str | None = None
    unheard: bool = False
    never_began: bool = False
    asks_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt follows. ``afresh``: nothing was done, so that it begins where this one began."""

    delay_ms: int
    afresh: bool
    tried: Tried


def again(failure: Failure, tried: Tried, policy: Policy, chance: float) -> Again | None:
    """What follows a failed attempt; None: nothing, its run is over. ``chance`` from 0 to 1 spreads the waits."""
    row = _row(failure)
    if row is None or _is_last(row, tried, policy):
        return None
    acted = tried.acted or failure.unheard
    if acted and not policy.after_side_effects:
        return None
    delay_ms = _wait_ms(row, _counted(row, tried), failure.asks_ms, chance)
    left_ms = tried.active_ms_left
    if delay_ms > LONGEST_WAIT_MS or (left_ms is not None and delay_ms >= left_ms):
        return None  # who has so little time, or is asked for so much patience, learns it now
    crashes, unbegun = tried.crashes + row.is_crash, tried.unbegun + (row is NEVER_BEGAN)
    return Again(delay_ms, not acted, Tried(tried.failures + 1, crashes, unbegun, tried.acted, left_ms))


def last_word(failure: Failure, tried: Tried, policy: Policy) -> tuple[ErrorCode, str | None]:
    """The code and message of a run that ends with this failure. One that broke all its attempts is itself what is wrong."""
    row = _row(failure)
    if row is None or not (row.is_crash and _is_last(row, tried, policy)):
        return failure.code, failure.message
    begun = _counted(row, tried)
    if not tried.crashes == begun > 0:
        return failure.code, failure.message
    return ErrorCode.POISON_RUN, f"all {begun + 1} attempts broke, the last with {failure.code}: {failure.message}"


def _row(failure: Failure) -> Retrying | None:
    return NEVER_BEGAN if failure.never_began else RETRYING.get(failure.code)


def _is_last(row: Retrying, tried: Tried, policy: Policy) -> bool:
    longest = row.attempts if row is NEVER_BEGAN else (policy.max_attempts or row.attempts)
    return _counted(row, tried) + 1 >= longest


def _counted(row: Retrying, tried: Tried) -> int:
    """The failures that stand against a row's bound and lengthen its wait: those that never began are counted on their own."""
    return tried.unbegun if row is NEVER_BEGAN else tried.failures - tried.unbegun


def _wait_ms(row: Retrying, failures: int, asks_ms: int | None, chance: float) -> int:
    """From half to all of the doubled wait; never sooner than the model asks for, and later by as much chance."""
    longest = min(row.first_ms * 2**failures, row.longest_ms)
    spread = longest / 2 * (1 + chance)
    return round(spread if asks_ms is None else asks_ms + longest / 2 * chance)
