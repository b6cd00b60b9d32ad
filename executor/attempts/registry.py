"""What this executor knows of its attempts, living and past: the registry, and nothing that changes an attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from executor.attempts.leash import Leash
from executor.attempts.runner import Runner
from executor.events import journal as journals
from executor.events.event_log import EventLog, Tail
from executor.events.journal import Journal, JournalError
from executor.workspaces.workspace import Workspace
from shared.clock import Clock, monotonic
from shared.contracts.events import AttemptEnded, AttemptOutcome
from shared.contracts.provider_runs import ProviderRun
from shared.errors import ErrorCode, RunyardError
from shared.sse import Frame, FrameReader

TRIES = 3
NEXT_TRY_SECONDS = 0.3
_TELLING_LINES = (b"\nevent: attempt.ended\n", b"\nevent: session.started\n")

log = structlog.get_logger("attempts")


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt. ``runner`` None: it belongs to an earlier life of the executor, and only its journal is left."""

    journal: Journal
    tail: Tail
    workspace: Workspace
    leash: Leash | None = None
    runner: Runner | None = None
    task: asyncio.Task[None] | None = None
    ended: AttemptEnded | None = None
    ended_seen: float | None = None  # on the monotonic clock: when this life of the executor first knew it ended
    engine_session: str | None = None

    @property
    def run_id(self) -> str:
        return self.journal.head.run_id

    @property
    def number(self) -> int:
        return self.journal.head.attempt

    @property
    def is_live(self) -> bool:
        return self.runner is not None and self.ended is None

    def note_end(self, payload: AttemptEnded, engine_session: str | None) -> None:
        """The attempt is over: keep what its snapshot shows, here and beside the journal."""
        self.knows_end(payload, engine_session)
        self.journal.write_end(engine_session, payload.wire_json())

    def knows_end(self, payload: AttemptEnded, engine_session: str | None) -> None:
        self.ended, self.ended_seen, self.engine_session = payload, monotonic(), engine_session

    def snapshot(self) -> ProviderRun:
        head = self.journal.head
        status = "ended" if self.ended is not None or self.runner is None else self.runner.status
        return ProviderRun.model_validate(
            {
                "run_id": head.run_id,
                "attempt": head.attempt,
                "provider": head.provider,
                "status": status,
                "executor_id": head.executor_id,
                "instance": head.instance,
                "pid": self.runner.pid if self.runner is not None else None,
                "started_at": head.started_at,
                "last_executor_cursor": self.journal.count,
                "engine_session": self.runner.engine_session if self.runner is not None else self.engine_session,
                "open_questions": self.runner.questions.open if self.runner is not None else [],
                "ended": self.ended,
            }
        )


@dataclass(slots=True)
class Attempts:
    """By run, then by number."""

    _runs: dict[str, dict[int, Attempt]] = field(default_factory=dict[str, dict[int, Attempt]])

    def add(self, attempt: Attempt) -> None:
        self._runs.setdefault(attempt.run_id, {})[attempt.number] = attempt

    def get(self, run_id: str, number: int) -> Attempt | None:
        return self._runs.get(run_id, {}).get(number)

    def newest(self, run_id: str) -> Attempt | None:
        of_run = self._runs.get(run_id)
        return of_run[max(of_run)] if of_run else None

    def named(self, run_id: str, number: int | None) -> Attempt:
        """The newest of a run. Raises ``not_found``; ``conflict`` when an older one was named."""
        newest = self.newest(run_id)
        if newest is None or (number is not None and number > newest.number):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no such attempt of run {run_id}")
        if number is not None and number < newest.number:
            raise RunyardError(ErrorCode.CONFLICT, f"attempt {number} of run {run_id} is not the newest")
        return newest

    def of_run(self, run_id: str) -> list[Attempt]:
        return list(self._runs.get(run_id, {}).values())

    def remove(self, attempt: Attempt) -> None:
        of_run = self._runs.get(attempt.run_id, {})
        of_run.pop(attempt.number, None)
        if not of_run:
            self._runs.pop(attempt.run_id, None)

    def __iter__(self) -> Iterator[Attempt]:
        return iter([attempt for of_run in self._runs.values() for attempt in of_run.values()])

    def live(self) -> list[Attempt]:
        return [attempt for attempt in self if attempt.is_live]


def recovered(root: Path, workspaces: Path, now: Clock) -> Iterator[Attempt]:
    """The attempts of earlier lives. One that never ended is ended here, as lost: its engine went with its executor.

    What cannot be read is tried again, a few times: an attempt that is not found here counts as lost, whatever its journal says.
    Then it stays where it is, for the next life.
    """
    folders = journals.found_folders(root)
    for tries_left in reversed(range(TRIES)):
        unread: list[Path] = []
        for folder in folders:
            try:
                attempt = _recovered(folder, root, workspaces, now)
            except (OSError, JournalError, ValueError) as error:
                unread.append(folder)
                log.error("journal.not_read", folder=str(folder.relative_to(root)), tries_left=tries_left, error=str(error))
                continue
            if attempt is not None:
                yield attempt
        if not unread or not tries_left:
            return
        time.sleep(NEXT_TRY_SECONDS)  # nothing is served yet
        folders = unread


def _recovered(folder: Path, root: Path, workspaces: Path, now: Clock) -> Attempt | None:
    """None for what is no journal. Raises ``OSError``, ``JournalError`` or ``ValueError`` for one that cannot be read."""
    journal = journals.journal_in(folder, root)
    if journal is None:
        return None
    attempt = Attempt(journal, Tail(journal, is_ended=True), Workspace.at(workspaces, journal.head.workspace))
    try:
        end = journal.read_end()
        if end is not None:
            attempt.knows_end(AttemptEnded.model_validate_json(bytes(end.payload)), end.engine_session)
        else:
            journal.load()
            last, session = _last_words(journal)
            attempt.note_end(last or _mark_lost(journal, now), session)
    finally:
        journal.close()
    return attempt


def _last_words(journal: Journal) -> tuple[AttemptEnded | None, str | None]:
    """The ``attempt.ended`` a journal ends with, and the last engine session it names."""
    ended: AttemptEnded | None = None
    session: str | None = None
    for frame in _telling_frames(journal):
        if frame.event == b"attempt.ended":
            ended = AttemptEnded.model_validate(msgspec.json.decode(frame.data)["data"])
        elif frame.event == b"session.started":
            session = msgspec.json.decode(frame.data)["data"]["engineSession"]
    return ended, session


def _telling_frames(journal: Journal) -> Iterator[Frame]:
    """At least the frames of the two kinds that matter; a block without any is not cut into frames at all."""
    cursor = 0
    while cursor < journal.count:
        block, cursor = journal.read(cursor, journals.SCAN_BYTES)
        if any(line in block for line in _TELLING_LINES):  # a line of its own: data holds no raw newline
            yield from FrameReader().feed(block)


def _mark_lost(journal: Journal, now: Clock) -> AttemptEnded:
    lost = AttemptEnded(
        outcome=AttemptOutcome.LOST,
        error_code=ErrorCode.EXECUTOR_LOST,
        error_message="the executor ended while the engine ran",
    )
    EventLog(journal, now, lambda _error: None).end(lost)
    return lost
