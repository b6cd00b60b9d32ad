"""The events of one attempt: numbered, coalesced, encoded once, appended to the journal, followed by any number of readers.

Raw output stands before the events that point into it. A slow reader costs its own stream, never the run: it reads the journal
by its own cursor, and nothing waits for it. Nothing here knows an engine or a process.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from executor.events.journal import Journal, JournalError
from executor.events.payloads import payload_json
from shared import sse
from shared.clock import Clock
from shared.contracts.events import Kind, MessageDelta, Payload, ReasoningDelta
from shared.sse import CutError

COALESCE_SECONDS = 0.05
RAW_FRAME_BYTES = 64 * 1024
MAX_PENDING_TEXT = 64 * 1024
BLOCK_BYTES = 256 * 1024
REMEMBERED_MESSAGES = 256

Delta = MessageDelta | ReasoningDelta


class RawSpan(NamedTuple):
    """The engine's own bytes that an event was made from: [byte_from, byte_to) of one stream of this attempt."""

    stream: str
    byte_from: int
    byte_to: int


DeltaKey = tuple[Kind, str]


@dataclass(slots=True)
class _PendingDelta:
    """Pieces of one message that have not been written yet."""

    first: Delta
    texts: list[str]
    raw_ref: RawSpan | None
    due: float
    size: int = 0

    def add(self, delta: Delta, raw_ref: RawSpan | None) -> None:
        self.texts.append(delta.text)
        self.size += len(delta.text)
        if raw_ref is not None and self.raw_ref is not None and raw_ref.stream == self.raw_ref.stream:
            self.raw_ref = self.raw_ref._replace(byte_to=raw_ref.byte_to)

    def payload(self) -> Delta:
        return self.first if len(self.texts) == 1 else self.first.model_copy(update={"text": "".join(self.texts)})


@dataclass(slots=True)
class _PendingRaw:
    """Output of one stream that has not been written yet; it begins at ``byte_from``."""

    byte_from: int = 0
    parts: list[bytes] = field(default_factory=list[bytes])
    size: int = 0


class EventLog:
    """Written by one runner on the event loop. What ``emit`` and ``raw`` take is written by ``commit`` or within 50 ms.

    When the disk refuses a write, ``on_broken`` is called once and everything but ``end`` does nothing from then on.
    """

    def __init__(self, journal: Journal, now: Clock, on_broken: Callable[[JournalError], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._now = now
        self._on_broken = on_broken
        self._frames: list[bytes] = []
        self._raw: dict[str, _PendingRaw] = {}
        self._deltas: dict[DeltaKey, _PendingDelta] = {}
        self._written_at: dict[DeltaKey, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_broken = False
        self._whose = b'"runId":"%b","attempt":%d' % (journal.head.run_id.encode(), journal.head.attempt)
        self._stamped, self._stamped_at = b"", -1.0
        self.last_kind: Kind | None = None
        self.tail = Tail(journal)

    def raw(self, stream: str, data: bytes) -> None:
        """Redacted output, in the order it came."""
        pending = self._raw.setdefault(stream, _PendingRaw())
        pending.parts.append(data)
        pending.size += len(data)
        if pending.size >= RAW_FRAME_BYTES:
            self._flush_raw()
        else:
            self._within(COALESCE_SECONDS)

    def emit(self, payload: Payload, raw_ref: RawSpan | None = None) -> None:
        self.last_kind = payload.KIND
        if isinstance(payload, MessageDelta | ReasoningDelta):
            self._emit_delta(payload, raw_ref)
        else:
            self._flush()
            self._write(payload, raw_ref)

    def commit(self) -> None:
        """Write what is encoded and wake the readers."""
        frames, self._frames = self._frames, []
        if not frames or self._is_broken:
            return
        try:
            self._journal.append(frames)
        except JournalError as error:
            self._is_broken = True
            self._on_broken(error)
            return
        self.tail.wake()

    def end(self, payload: Payload) -> None:
        """The last event. Readers end after it; without room on the disk it is kept in memory."""
        self._flush()
        self.commit()
        self._frames.clear()
        self._write(payload, None)
        self._journal.append_last(self._frames.pop())
        if self._timer is not None:
            self._timer.cancel()
        self.tail.end()

    # ---- coalescing ----

    def _emit_delta(self, delta: Delta, raw_ref: RawSpan | None) -> None:
        key = (delta.KIND, delta.message_id)
        pending = self._deltas.get(key)
        if pending is not None:
            pending.add(delta, raw_ref)
        else:
            due = self._written_at.get(key, 0.0) + COALESCE_SECONDS
            pending = self._deltas[key] = _PendingDelta(delta, [delta.text], raw_ref, due, len(delta.text))
        if pending.due <= self._loop.time() or pending.size >= MAX_PENDING_TEXT:
            self._flush()
        else:
            self._within(pending.due - self._loop.time())

    def _within(self, seconds: float) -> None:
        """Write what is pending at the latest then."""
        when = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > when:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._flush()
        self.commit()

    def _flush(self) -> None:
        """All that is pending: raw output, then each text in the order in which it began. Nothing newer overtakes any of it."""
        self._flush_raw()
        for key in list(self._deltas):
            self._flush_delta(key)

    def _flush_delta(self, key: DeltaKey) -> None:
        pending = self._deltas.pop(key)
        self._write(pending.payload(), pending.raw_ref)
        now = self._loop.time()
        self._written_at[key] = now
        if len(self._written_at) > REMEMBERED_MESSAGES:
            self._written_at = {each: at for each, at in self._written_at.items() if now - at < COALESCE_SECONDS}

    def _flush_raw(self) -> None:
        for stream, pending in self._raw.items():
            data = b"".join(pending.parts)
            for start in range(0, len(data), RAW_FRAME_BYTES):
                piece = data[start : start + RAW_FRAME_BYTES]
                text = b'{"stream":%b,"byteFrom":%d,"base64":"%b"}' % (
                    json.dumps(stream).encode(), pending.byte_from + start, base64.b64encode(piece),
                )  # fmt: skip
                self._encode(Kind.LOG, text, b"")
            self._raw[stream] = _PendingRaw(pending.byte_from + len(data))

    # ---- encoding ----

    def _write(self, payload: Payload, raw_ref: RawSpan | None) -> None:
        reference = b""
        if raw_ref is not None:
            reference = b',"rawRef":{"attempt":%d,"stream":%b,"byteFrom":%d,"byteTo":%d}' % (
                self._journal.head.attempt, json.dumps(raw_ref.stream).encode(), raw_ref.byte_from, raw_ref.byte_to,
            )  # fmt: skip
        kind, text = payload_json(payload)
        self._encode(kind, text, reference)

    def _encode(self, kind: Kind, data: bytes, reference: bytes) -> None:
        cursor = self._journal.count + len(self._frames) + 1
        text = b'{"executorCursor":%d,%b,"at":"%b","kind":"%b","data":%b%b}' % (
            cursor, self._whose, self._stamp(), kind.encode(), data, reference,
        )  # fmt: skip
        self._frames.append(sse.encode(cursor, kind, text))

    def _stamp(self) -> bytes:
        """The wall clock, to the millisecond; asked at most once in one."""
        now = self._loop.time()
        if now - self._stamped_at >= 0.001:
            self._stamped_at = now
            self._stamped = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        return self._stamped


class Tail:
    """The readers' side of a journal: what is in it, whether more will come."""

    def __init__(self, journal: Journal, *, is_ended: bool = False) -> None:
        self.journal = journal
        self.is_ended = is_ended
        self.is_cut = False
        self.was_read = False  # to the end, by somebody
        self._waiting: set[asyncio.Future[None]] = set()
        self._indexing: asyncio.Future[None] | None = None
        self._readers = 0

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        """Nothing comes any more."""
        self.is_ended = True
        self.wake()
        self._close_when_idle()

    def cut(self) -> None:
        """This process ends before the attempt does: readers must see a cut."""
        self.is_cut = True
        self.wake()

    def follow(self, after: int) -> Follower:
        """Everything after that cursor, in the journal now or later."""
        self._readers += 1
        return Follower(self, after)

    def left(self) -> None:
        self._readers -= 1
        self._close_when_idle()

    async def indexed(self) -> None:
        """Until the journal can be read: once, in a thread, for all who wait. Raises ``OSError``; the next to ask tries again."""
        if self._indexing is None:
            self._indexing = asyncio.ensure_future(self._index())
            self._indexing.add_done_callback(lambda done: done.cancelled() or done.exception())  # also when nobody waits any more
        await asyncio.shield(self._indexing)

    async def _index(self) -> None:
        try:
            offsets = await asyncio.to_thread(self.journal.scan)
            if self.journal.is_unread:
                self.journal.take_index(offsets)
        finally:
            self._indexing = None

    async def changed(self, within: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(within):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(future)

    def _close_when_idle(self) -> None:
        if self.is_ended and self._readers == 0:
            self.journal.close()


class Follower:
    """One reader (``shared.sse.Blocks``)."""

    def __init__(self, tail: Tail, after: int) -> None:
        self._tail = tail
        self._cursor = after
        self._is_open = True

    async def next(self, within: float) -> bytes | None:
        if self._tail.journal.is_unread:
            await self._index()
        if self._cursor >= self._tail.journal.count:
            if self._tail.is_ended:
                return self._over()
            if not self._tail.is_cut:
                await self._tail.changed(within)
        if self._cursor < self._tail.journal.count:
            return self._read()
        if self._tail.is_cut and not self._tail.is_ended:
            raise CutError
        return b"" if not self._tail.is_ended else self._over()

    def _over(self) -> None:
        self._tail.was_read = True

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._tail.left()

    async def _index(self) -> None:
        try:
            await self._tail.indexed()
        except OSError as error:  # released under its reader
            raise CutError from error

    def _read(self) -> bytes:
        try:
            block, self._cursor = self._tail.journal.read(self._cursor, BLOCK_BYTES)
        except (OSError, JournalError) as error:  # released under its reader
            raise CutError from error
        return block
