"""The recorder: one window for all runs of this process, so that a thousand events cost one commit.

A driver hands in news and waits for its commit before it reads on: back-pressure needs no queue. While the database is away
the window is tried again; what a first try may have committed is known by the executor's cursor and written once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from control_plane.domain.news import FromExecutor, News
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease
from control_plane.storage.run_log import Refused, RunLog, Write
from shared.errors import ErrorCode, RunyardError

log = structlog.get_logger("recorder")

WINDOW_ROWS = 256
WINDOW_BYTES = 8 * 1024 * 1024  # what is too much for one transaction's time would be tried again for ever
WINDOW_SECONDS = 0.004
RETRY_SECONDS = 0.5


class LeaseLost(Exception):
    """The run is no longer ours to drive; somebody else has it, or it is over."""


@dataclass(slots=True)
class _Pending:
    lease: Lease
    news: list[News]
    done: asyncio.Future[Change]
    rows: int = field(init=False)
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.news)
        self.bytes = sum(len(each.data) for each in self.news if isinstance(each, FromExecutor))


class Recorder:
    """``run`` is its loop. At most one piece of news per run is in flight: the caller waits.

    ``let_go`` is told of every lease that went with a write, before its driver hears of that write.
    """

    def __init__(self, run_log: RunLog, let_go: Callable[[Lease], object] = lambda _: None) -> None:
        self._log = run_log
        self._let_go = let_go
        self._waiting: deque[_Pending] = deque()
        self._arrived = asyncio.Event()

    async def record(self, lease: Lease, news: Sequence[News]) -> Change:
        """Write news of a run we drive. Returns after its commit.

        Raises ``LeaseLost``, or ``Refused`` when the database refused this run's rows.
        """
        pending = _Pending(lease, list(news), asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        self._arrived.set()
        return await pending.done

    async def run(self) -> None:
        """Until cancelled; then whoever waits is told that the lease is lost."""
        try:
            while True:
                await self._arrived.wait()
                if sum(each.rows for each in self._waiting) < WINDOW_ROWS:
                    await asyncio.sleep(WINDOW_SECONDS)
                await self._write(self._take())
        finally:
            for pending in self._waiting:
                _fail(pending, LeaseLost(pending.lease.run_id))

    def _take(self) -> list[_Pending]:
        """Up to ``WINDOW_ROWS`` rows and ``WINDOW_BYTES``, at least one piece of news, each run once."""
        window: dict[str, _Pending] = {}
        rows, size = 0, 0
        for _ in range(len(self._waiting)):
            pending = self._waiting.popleft()
            if pending.done.done():
                continue  # its driver has left
            is_full = rows + pending.rows > WINDOW_ROWS or size + pending.bytes > WINDOW_BYTES
            if pending.lease.run_id in window or (window and is_full):
                self._waiting.append(pending)
                continue
            window[pending.lease.run_id] = pending
            rows, size = rows + pending.rows, size + pending.bytes
        if not self._waiting:
            self._arrived.clear()
        return list(window.values())

    async def _write(self, window: list[_Pending]) -> None:
        while window:
            try:
                changes = await self._log.write([Write(each.lease.run_id, each.news, each.lease.token) for each in window])
            except Refused as refusal:
                await self._write_apart(window, refusal)
                return
            except RunyardError as error:
                if error.code is not ErrorCode.STORAGE_UNAVAILABLE:
                    raise
                log.warning("recorder.waiting_for_storage", runs=len(window), reason=error.detail)
                await asyncio.sleep(RETRY_SECONDS)
                window = [each for each in window if not each.done.done()]
                continue
            except BaseException as error:
                for pending in window:
                    _fail(pending, LeaseLost(str(error)))
                raise
            for pending, change in zip(window, changes, strict=True):
                self._settle(pending, change)
            return

    async def _write_apart(self, window: list[_Pending], refusal: Refused) -> None:
        """One run's rows were refused: every run is written alone, so that only that one suffers."""
        if len(window) == 1:
            log.error("recorder.refused", run_id=window[0].lease.run_id, reason=str(refusal))
            _fail(window[0], refusal)
            return
        for pending in window:
            await self._write([pending])

    def _settle(self, pending: _Pending, change: Change | None) -> None:
        if change is None:
            _fail(pending, LeaseLost(pending.lease.run_id))
            return
        if change.lets_go:
            self._let_go(pending.lease)
        if not pending.done.done():
            pending.done.set_result(change)


def _fail(pending: _Pending, error: Exception) -> None:
    if not pending.done.done():
        pending.done.set_exception(error)
