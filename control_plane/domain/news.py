"""What a writer is told of a run: how it stands under its row's lock, and the news of it. Shapes only; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from control_plane.domain.lifecycle import Signal
from control_plane.domain.messages import MessagesSettled
from control_plane.domain.retrying import Policy, Tried
from shared.contracts.events import Diagnostic, InteractionResolved, Payload
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Locked:
    """A run as it stands under its row's lock; ``now`` is the database's clock.

    ``open_questions`` are all that were not resolved; ``answered`` those of them that have an accepted reply.
    """

    run_id: str
    status: RunStatus
    last_cursor: int
    attempt: int
    executor_cursor: int
    now: datetime
    stop_reason: str | None = None
    stop_detail: str | None = None
    has_lease: bool = False
    attempt_living: bool = False
    open_questions: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    answered_by: dict[str, str | None] = field(default_factory=dict[str, str | None])
    interaction_ms: int = 86_400_000
    on_expiry: str = "fail"
    expiry_answer: str | None = None
    messages: tuple[str, ...] = ()  # those that wait, oldest first; known where the news may settle them
    has_session: bool = False  # the living attempt's engine has one
    tried: Tried = field(default_factory=Tried)
    policy: Policy = field(default_factory=Policy)
    lender: str = ""  # whose credentials it uses
    provider: str = ""
    is_watched: bool = False  # a breaker counts what becomes of them
    is_trying: bool = False  # it tries that breaker for all others
    held: bool = False  # it waits for something else than room, and has said so
    chance: float = 1.0  # spreads the waits before further attempts


# ---- news ----


class FromExecutor(msgspec.Struct, frozen=True):
    """One frame of an attempt's stream; ``data`` and ``raw_ref`` are its JSON, untouched."""

    executor_cursor: int
    attempt: int
    at: datetime
    kind: str
    data: str
    raw_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A signal of our own, with the event that tells of it and, where it ends the run, why.

    ``never_began``: the attempt that is lost was never had by its executor.
    """

    signal: Signal
    error_code: ErrorCode | None = None
    error_message: str | None = None
    event: Payload | None = None
    never_began: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Someone asked for the end; ``reason`` decides which end it will be, ``detail`` is its message to people.

    ``seen``: the status and the attempt its asker judged by; without effect on a run that has gone on since.
    """

    reason: ErrorCode = ErrorCode.USER_CANCELED
    detail: str | None = None
    seen: tuple[RunStatus, int] | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Something else keeps it back: nobody is to drive it for so long, and it says why unless it is held already.

    One that was asked to stop is only let go.
    """

    seconds: float
    why: Diagnostic


@dataclass(frozen=True, slots=True)
class Settle:
    """Our own end of a question. Without effect on one that is closed already, or answered where only ``pending`` ones count."""

    event: InteractionResolved
    why: Diagnostic | None = None
    pending: bool = False
    stop: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An attempt began with these replies; every other question died with the engine that had asked it."""

    answers: tuple[InteractionResolved, ...]


News = FromExecutor | Move | Stop | Hold | Settle | Told | MessagesSettled
