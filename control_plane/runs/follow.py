"""Live tails: how readers of this process follow runs, whichever replica writes them.

Replay and follow are one loop over one cursor; there is no seam where an event can fall. The tail of a run is bounded: a
reader behind its head reads the table. A slow reader costs its own stream, never the run and never another reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from control_plane.domain.recording import Change
from control_plane.storage.events import EventStore, StoredEvent
from control_plane.storage.runs import RunStore
from control_plane.storage.wakeups import heads_of
from control_plane.views.api import Event, frame
from shared.contracts.events import Kind
from shared.contracts.runs import TERMINAL
from shared.errors import ErrorCode, RunyardError
from shared.sse import SentAway
from shared.waiter import Waiter

log = structlog.get_logger("follow")

PAGE = 512
BLOCK_BYTES = 4 * 1024 * 1024  # what one reader holds; a page somebody asks for may be longer
TAIL_EVENTS = 1_000
TAIL_BYTES = 1024 * 1024
POLL_SECONDS = 1.0
_TERMINAL = tuple(f'"status":"{status}"' for status in TERMINAL)


class _Kept(NamedTuple):
    cursor: int
    frame: bytes
    last: bool


class _Piece(NamedTuple):
    """Frames in one block; the cursor of the last one, and whether it is the run's end."""

    cursor: int
    last: bool
    block: bytes


def _piece(kept: Sequence[_Kept]) -> _Piece | None:
    return _Piece(kept[-1].cursor, kept[-1].last, b"".join(each.frame for each in kept)) if kept else None


def _kept(run_id: str, event: Event) -> _Kept:
    last = event.kind == Kind.RUN_STATUS and event.data.startswith(tuple("{" + each for each in _TERMINAL))
    return _Kept(event.cursor, frame(run_id, event), last)


class Tail:
    """The newest frames of one run, encoded once and shared by all readers here."""

    def __init__(self, run_id: str, events: EventStore) -> None:
        self.run_id = run_id
        self._events = events
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self._filling = asyncio.Lock()
        self._joined: tuple[int, _Piece | None] | None = None  # what one reader of a wake took: the next one takes the same
        self.waiters: set[Waiter] = set()
        self.last = 0
        self.known = 0
        self.is_gone = False  # the run was deleted while it was read

    def append(self, events: Sequence[Event]) -> None:
        """What was just committed. A gap before it is filled from the table by the next reader."""
        for event in events:
            if event.cursor == self.last + 1 and self.readers:
                self._keep(_kept(self.run_id, event))
        self.announce(events[-1].cursor)

    def announce(self, cursor: int) -> None:
        """The run has come as far as ``cursor``, here or at another replica."""
        if cursor > self.known:
            self.known = cursor
            self.wake()

    def wake(self) -> None:
        """Let every reader look again."""
        for waiter in self.waiters:
            waiter.wake()

    @property
    def readers(self) -> int:
        return len(self.waiters)

    def start_at(self, cursor: int) -> None:
        """The first reader decides where the tail begins; history before it is in the table."""
        if self.readers == 1:
            self._kept.clear()
            self._joined = None
            self._bytes, self.last, self.known = 0, cursor, max(self.known, cursor)

    def _held(self, cursor: int) -> _Piece | None:
        """What memory holds after ``cursor``, up to a page; None: nothing, or not from there on."""
        if self._joined is not None and self._joined[0] == cursor:
            return self._joined[1]
        if not self._kept or self._kept[0].cursor > cursor + 1:
            return None
        skip = cursor + 1 - self._kept[0].cursor
        piece = _piece([self._kept[index] for index in range(skip, min(len(self._kept), skip + PAGE))])
        self._joined = cursor, piece
        return piece

    async def after(self, cursor: int) -> _Piece | None:
        """Everything after ``cursor`` that is known, up to a page; from memory where it is still held."""
        if self.known > self.last:
            async with self._filling:
                if self.known > self.last:
                    await self._fill()
        if cursor >= self.last:
            return None
        held = self._held(cursor) or _piece([_kept(self.run_id, event) for event in await self._page(cursor)])
        self.is_gone = held is None
        return held

    async def _fill(self) -> None:
        announced = self.known
        rows = await self._page(self.last)
        for event in rows:
            if event.kind == Kind.STREAM_GAP:
                self._forget(event.cursor)
            elif event.cursor == self.last + 1:
                self._keep(_kept(self.run_id, event))
        if not rows and self.known == announced:
            self.known = self.last  # announced, but not there: a hint may be wrong, the table never is

    async def _page(self, cursor: int) -> list[StoredEvent]:
        return await self._events.page(self.run_id, cursor, PAGE, max_bytes=BLOCK_BYTES)

    def _forget(self, cursor: int) -> None:
        """History up to here was trimmed: begin after it. Who is behind finds the gap in the table."""
        self._kept.clear()
        self._joined = None
        self._bytes, self.last = 0, cursor

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._joined = None
        self._bytes += len(kept.frame)
        self.last = kept.cursor
        while len(self._kept) > TAIL_EVENTS or self._bytes > TAIL_BYTES:
            self._bytes -= len(self._kept.popleft().frame)


class Following:
    """One reader of one run: ``shared.sse.Blocks`` from a cursor to the terminal event."""

    def __init__(self, hub: TailHub, tail: Tail, waiter: Waiter, cursor: int) -> None:
        self._hub = hub
        self._tail = tail
        self._cursor = cursor
        self._over = False
        self._waiter = waiter

    async def next(self, within: float) -> bytes | None:
        """As ``Blocks``. Raises ``SentAway`` when this process is about to end: the reader resumes at another one."""
        if self._over:
            return None
        self._must_stay()
        try:
            piece = await self._news()
            if piece is None:
                self._must_stay()
                if self._tail.known <= self._cursor:
                    await self._waiter.wait(within)
                piece = await self._news()
        except RunyardError as error:
            if error.code is not ErrorCode.STORAGE_UNAVAILABLE:
                raise
            await asyncio.sleep(min(within, POLL_SECONDS))  # the run goes on when the database returns, and so does this
            return b""
        if piece is None:
            self._must_stay()
            return None if self._tail.is_gone else b""
        self._cursor, self._over = piece.cursor, piece.last
        return piece.block

    def _must_stay(self) -> None:
        if self._hub.stopping:
            raise SentAway

    async def _news(self) -> _Piece | None:
        return await self._tail.after(self._cursor) if self._tail.known > self._cursor else None

    async def close(self) -> None:
        self._waiter.close()
        self._hub.left(self._tail, self._waiter)


class Nothing:
    """What is left of a finished run after its last cursor."""

    async def next(self, within: float) -> bytes | None:
        return None

    async def close(self) -> None:
        return None


class TailHub:
    """All tails of this process. ``run`` keeps them honest: NOTIFY is a hint, polling is the truth."""

    def __init__(self, runs: RunStore, events: EventStore) -> None:
        self._runs = runs
        self._events = events
        self._tails: dict[str, Tail] = {}
        self.stopping = False

    def join(self, run_id: str, cursor: int, last_cursor: int) -> Following:
        """A reader that has seen ``cursor``; ``last_cursor`` is what the table was just seen to hold."""
        tail = self._tails.setdefault(run_id, Tail(run_id, self._events))
        waiter = Waiter()
        tail.waiters.add(waiter)
        tail.start_at(last_cursor)
        tail.announce(last_cursor)
        return Following(self, tail, waiter, cursor)

    def left(self, tail: Tail, waiter: Waiter) -> None:
        tail.waiters.discard(waiter)
        if not tail.waiters and self._tails.get(tail.run_id) is tail:
            del self._tails[tail.run_id]

    def committed(self, changes: Sequence[Change]) -> None:
        """A window of this process was committed."""
        for change in changes:
            tail = self._tails.get(change.run_id)
            if tail is not None:
                tail.append(change.events)

    def heard(self, payload: str) -> None:
        """A hint from another replica (or our own, which changes nothing)."""
        for run_id, cursor in heads_of(payload):
            tail = self._tails.get(run_id)
            if tail is not None:
                tail.announce(cursor)

    @property
    def readers(self) -> int:
        """How many streams are open here."""
        return sum(tail.readers for tail in self._tails.values())

    def stop(self) -> None:
        """Send every reader away: this process is about to end."""
        self.stopping = True
        for tail in self._tails.values():
            tail.wake()

    async def run(self) -> None:
        """Until cancelled: ask the table how far the followed runs have come."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                for run_id, cursor in (await self._runs.heads(list(self._tails))).items() if self._tails else ():
                    if run_id in self._tails:
                        self._tails[run_id].announce(cursor)
            except RunyardError as error:
                log.warning("follow.poll_failed", reason=str(error))
