"""A run as its driver and its readers know it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from control_plane.domain.profile import Profile
from shared.contracts.interactions import OnExpiry
from shared.contracts.providers import Provider
from shared.contracts.runs import OnSessionBusy, RunStatus


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be written; ``request`` is the ``StartRun`` as it came, ``profile`` what an app lent to it (JSON).

    ``resumes``: it names what to go on with, and so its workspace; otherwise it works where its session does.
    """

    run_id: str
    source: str
    source_ref: str | None
    session_id: str | None
    app_id: str | None
    provider: Provider
    model: str | None
    priority: int
    metadata: Mapping[str, Any]
    workspace_key: str
    resume_session: str | None
    request: str
    first_event: str
    interaction_ms: int
    on_expiry: OnExpiry
    expiry_answer: str | None = None
    profile: str | None = None
    max_attempts: int | None = None
    retry_after_side_effects: bool = False
    lender: str = ""
    on_session_busy: OnSessionBusy = OnSessionBusy.QUEUE
    resumes: bool = False

    @property
    def has_own_workspace(self) -> bool:
        """Nobody worked there before it."""
        return self.workspace_key == self.run_id


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    key: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a run for a while; the token is its proof in every write."""

    run_id: str
    token: UUID


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an attempt runs."""

    executor_id: str
    instance: str
    url: str


@dataclass(frozen=True, slots=True)
class DrivenRun:
    """What a driver needs to know of its run. ``attempt`` 0: there was none yet.

    ``waits_at``: the full executor it waits for, which alone has its files; ``awaited``: those of the runs before it in the line.
    """

    run_id: str
    status: RunStatus
    provider: Provider
    model: str | None
    workspace_key: str
    resume_session: str | None
    engine_session: str | None
    request: str
    profile: Profile | None
    active_ms_left: int | None
    stop_requested: bool
    attempt: int
    executor_cursor: int
    placement: Placement | None = None
    attempt_started: bool = False
    attempt_ended: bool = False
    is_to_park: bool = False
    failures: int = 0
    lender: str = ""
    meets_breaker: bool = False
    waits_at: str | None = None
    awaited: tuple[str, ...] = ()
    stopping_seconds: float = 0.0  # since someone asked for its end

    @property
    def attempt_living(self) -> bool:
        return self.placement is not None and not self.attempt_ended


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run that is to stop and is not over. ``executor_id`` None: it has no living attempt."""

    run_id: str
    attempt: int
    executor_id: str | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """A run whose time is up as it stands: ``attempt`` is its newest. ``waited_for``: in vain; None: it worked."""

    status: RunStatus
    attempt: int
    waited_for: str | None


@dataclass(frozen=True, slots=True)
class Resumable:
    """An earlier run whose engine session can be gone on with."""

    app_id: str | None
    session_id: str | None
    provider: str
    workspace_key: str
    engine_session: str | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as its readers see it: the summary, its head and its last attempt's outcome."""

    run_id: str
    status: RunStatus
    last_cursor: int
    attempt: int
    claimed: bool
    resting: bool
    source: str
    created_at: datetime
    source_ref: str | None = None
    session_id: str | None = None
    app_id: str | None = None
    provider: str | None = None
    model: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    stop_requested_at: datetime | None = None
    error_code: str | None = None
    error_message: str | None = None
    retryable: bool | None = None
    exit_code: int | None = None
    queue_position: int | None = None
    next_attempt_at: datetime | None = None
    expected_wait_ms: int | None = None
    engine_session: str | None = None
    attempt_ended: bool = False
    outcome: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs a list shows; None: any."""

    app_id: str | None = None
    status: RunStatus | None = None
    source: str | None = None
    provider: str | None = None
    session_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
