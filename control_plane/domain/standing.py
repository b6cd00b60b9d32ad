"""Where a session's files and engine session stand before an attempt begins, and what may be gone on from. Pure.

Rule 1. Work that is lost is told, and only a run that begins, or one that may begin again, goes on without it.
Rule 2. What a snapshot does not know must be said anew: the request, where it was not yet part of the session, and what
people said to engines of the run since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from control_plane.domain.news import FromExecutor
from control_plane.domain.run import DrivenRun
from shared.contracts.events import EventRef, Kind, SnapshotTaken
from shared.contracts.provider_runs import AttemptRef, Message, Otherwise, SnapshotRef
from shared.contracts.runs import RunStatus

# Events that tell of no work: nothing is lost with them, and an engine that told no others may have heard nothing.
NO_WORK = frozenset({
    Kind.RUN_STATUS, Kind.ATTEMPT_STARTED, Kind.ATTEMPT_ENDED, Kind.ATTEMPT_LOST, Kind.SESSION_STARTED, Kind.DIAGNOSTIC,
    Kind.RAW_STDOUT, Kind.RAW_STDERR, Kind.RETRY_SCHEDULED, Kind.INTERACTION_RESOLVED,
})  # fmt: skip


class AttemptName(NamedTuple):
    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest one of a workspace. ``cursor``: the last event of its run whose work is in it.

    ``engine_session`` is the one its attempt worked in, ``provider`` whose that is; ``knows_session``: the session that the run
    at hand is to go on with had begun before.
    """

    sha256: str
    bytes: int
    path: str
    executor_id: str
    run_id: str
    attempt: int
    cursor: int
    engine_session: str | None
    provider: str | None = None
    knows_session: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """``newest``: attempts whose files are the newest, as far as is known; ``newest_at``: the executor that has them.

    ``lost_from``: the first event whose work neither the snapshot holds nor, without one, an empty workspace.
    ``is_own``: no other run ever worked here.
    """

    newest: tuple[AttemptName, ...] = ()
    newest_at: str | None = None
    snapshot: Snapshot | None = None
    lost_from: EventRef | None = None
    is_own: bool = True

    @property
    def is_movable(self) -> bool:
        """Another executor can have all of it."""
        return self.snapshot is not None and self.lost_from is None

    def after(self) -> list[AttemptRef]:
        return [AttemptRef(run_id=each.run_id, attempt=each.attempt) for each in self.newest]


NOBODY_YET = Standing()


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot an attempt has just left: everything before this frame of it, and up to this event of its run."""

    taken: SnapshotTaken
    executor_cursor: int
    cursor: int

    @classmethod
    def told_by(cls, event: FromExecutor, cursor: int) -> Kept:
        """Raises ``ValueError`` for a frame that makes no sense."""
        return cls(SnapshotTaken.model_validate_json(event.data), event.executor_cursor, cursor)


def otherwise(run: DrivenRun, standing: Standing, say: Callable[[int | None], list[Message]]) -> Otherwise | None:
    """What an executor without the newest files is to do. None: it is to refuse.

    ``say(known)``: the messages of the next attempt, for a session that knows what attempts up to ``known`` were told; None: for
    one that does not even know the request.
    """
    snapshot = standing.snapshot
    may_begin_again = run.failures > 0 and run.status is not RunStatus.WAITING_USER
    is_of_this_run = snapshot is not None and snapshot.run_id == run.run_id
    if run.attempt > 1 and not may_begin_again and not (is_of_this_run and standing.lost_from is None):
        return None
    if snapshot is None:
        return Otherwise(lost_from=standing.lost_from, messages=say(None)) if standing.is_own and run.attempt > 1 else None
    session = snapshot.engine_session if is_of_this_run else _session_before(run, snapshot)
    return Otherwise(
        snapshot=SnapshotRef(
            sha256=snapshot.sha256, bytes=snapshot.bytes, path=snapshot.path, executor_id=snapshot.executor_id,
            run_id=snapshot.run_id, attempt=snapshot.attempt, cursor=snapshot.cursor,
        ),
        lost_from=standing.lost_from,
        resume_session_id=session,
        messages=say(snapshot.attempt if is_of_this_run and session is not None else None),
    )  # fmt: skip


def _session_before(run: DrivenRun, snapshot: Snapshot) -> str | None:
    """The engine session a run goes on with that has not begun yet: the one it was to, as far as the snapshot knows it."""
    if run.resume_session is None or snapshot.knows_session:
        return run.resume_session
    return snapshot.engine_session if snapshot.provider == run.provider else None
