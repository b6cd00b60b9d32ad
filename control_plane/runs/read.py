"""Reading runs: snapshots, pages, events, logs and streams. Changes nothing."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass

from control_plane.domain.run import RunFilter, RunRow
from control_plane.runs.flatten import Flattened
from control_plane.runs.follow import Following, Nothing, TailHub
from control_plane.storage.events import END, PAGE_BYTES, EventStore, StoredEvent
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.runs import RunStore
from control_plane.views import api
from control_plane.views.positions import bad_cursor, decode_position, encode_position
from control_plane.views.workbench import Workbench
from shared.contracts.interactions import InteractionStatus
from shared.contracts.runs import TERMINAL, LogRange, RunList, RunSnapshot, RunStatus
from shared.errors import ErrorCode, RunyardError
from shared.sse import SentAway
from shared.web import Caller

MAX_LOG_BYTES = 1024 * 1024
MAX_WAIT_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class ReadRun:
    """Every method raises ``not_found`` for a run that is not the caller's."""

    runs: RunStore
    events: EventStore
    interactions: InteractionStore
    hub: TailHub

    async def snapshot(self, run_id: str, caller: Caller) -> RunSnapshot:
        row = await self._row(run_id, caller)
        pending = []
        if row.status is RunStatus.WAITING_USER:
            pending, _ = await self.interactions.page(None, InteractionStatus.PENDING, run_id, None, 100)
        return api.snapshot(row, pending)

    async def page(self, wanted: RunFilter, cursor: str | None, limit: int) -> RunList:
        """Newest first; fewer than ``limit`` where they are large. Raises ``invalid_request`` for a cursor we did not give."""
        rows, has_more = await self.runs.page(wanted, decode_position(cursor, 2), limit)
        following = encode_position(rows[-1].created_at, rows[-1].run_id) if has_more else None
        return RunList(items=[api.snapshot(row) for row in rows], next_cursor=following)

    async def event_page(self, run_id: str, caller: Caller, after: int, before: int | None, limit: int) -> str:
        """An ``EventPage`` as JSON."""
        await self._row(run_id, caller)
        rows = await self.events.page(run_id, after, limit + 1, END if before is None else before)
        is_cut = len(rows) > limit or sum(len(each.data.encode()) for each in rows) >= PAGE_BYTES
        return api.event_page(run_id, rows[:limit], rows[:limit][-1].cursor if is_cut else None)

    async def stream(self, run_id: str, caller: Caller, cursor: int) -> Following | Nothing:
        """What comes after ``cursor``, to the terminal event. Raises ``invalid_request`` for a cursor beyond the log."""
        head = await self.runs.head(run_id)
        if head is None or not caller.may_see(head[1]):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        status, _, last_cursor = head
        _refuse_beyond(cursor, last_cursor)
        if status in TERMINAL and cursor == last_cursor:
            return Nothing()
        return self.hub.join(run_id, cursor, last_cursor)

    async def flat_stream(self, run_id: str, caller: Caller, cursor: int) -> Flattened:
        """The same as flat frames. The log is read from its beginning: what a frame says may depend on what came before."""
        row = await self._row(run_id, caller)
        _refuse_beyond(cursor, row.last_cursor)
        return Flattened(self.hub.join(run_id, 0, row.last_cursor), Workbench(run_id, row.provider, cursor))

    async def until_over(self, run_id: str, caller: Caller, within: float) -> tuple[RunSnapshot, list[StoredEvent]]:
        """Wait for the end, at most ``within`` seconds; the snapshot then, and the events so far (bounded).

        A process that is about to end does not wait: its answer says how far the run has come.
        """
        following = await self.stream(run_id, caller, 0)
        try:
            async with asyncio.timeout(within):
                while await following.next(within) is not None:
                    pass
        except (TimeoutError, SentAway):
            pass
        finally:
            await following.close()
        rows = await self.events.page(run_id, 0, MAX_WAIT_EVENTS)
        return await self.snapshot(run_id, caller), rows

    async def log_range(
        self, run_id: str, caller: Caller, stream: str, attempt: int | None, byte_from: int, byte_to: int | None
    ) -> LogRange:
        """Bytes [byte_from, byte_to) of a stream, at most 1 MiB. ``attempt`` None: the last one."""
        row = await self._row(run_id, caller)
        number = row.attempt if attempt is None else attempt
        end = byte_from + MAX_LOG_BYTES if byte_to is None else min(byte_to, byte_from + MAX_LOG_BYTES)
        content = await self.events.raw_range(run_id, number, stream, byte_from, end) if byte_from < end else b""
        total, gone = await self.events.raw_held(run_id, number, stream)  # after the bytes: what they lack is told
        return LogRange(
            run_id=run_id, attempt=number, stream=stream, byte_from=byte_from, byte_to=byte_from + len(content),
            total_bytes=total, gone_bytes=gone, text=content.decode(errors="replace"), base64=base64.b64encode(content).decode(),
        )  # fmt: skip

    async def _row(self, run_id: str, caller: Caller) -> RunRow:
        row = await self.runs.snapshot(run_id)
        if row is None or not caller.may_see(row.app_id):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        return row


def _refuse_beyond(cursor: int, last_cursor: int) -> None:
    if cursor > last_cursor:
        raise bad_cursor(f"{cursor} is beyond the log, which ends at {last_cursor}")
