"""The sweeper looks without a lock: what became of a run since then counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from asyncpg import Pool

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease
from control_plane.interactions.expire import ExpireQuestions
from control_plane.runs.interrupt import InterruptSession
from control_plane.runs.park import AskToPark
from control_plane.runs.reap import Reaper
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.parking import ParkingStore
from control_plane.storage.run_log import RunLog, Write
from shared.contracts.events import AttemptLost
from tests.service.control_plane.conftest import PLACE, Stores, new_run, running


class LateLog(RunLog):
    """Before it writes for the first time, something else happens."""

    def __init__(self, pool: Pool, first: Callable[[], Awaitable[object]]) -> None:
        super().__init__(pool, [])
        self._first = first
        self.wrote = asyncio.Event()

    async def write(self, writes: Sequence[Write]) -> list[Change | None]:
        if not self.wrote.is_set():
            await self._first()
        changes = await super().write(writes)
        self.wrote.set()
        return changes


async def queued(stores: Stores) -> Lease:
    await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    return lease


async def between_attempts(stores: Stores) -> Lease:
    lease = await stores.started()
    lost = Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="gone"))
    await stores.log.write([Write(lease.run_id, [lost], lease.token)])
    return lease


@pytest.mark.parametrize("waiting", [queued, between_attempts])
async def test_a_run_that_gets_its_executor_after_the_sweepers_look_works_on(
    stores: Stores, waiting: Callable[[Stores], Awaitable[Lease]]
) -> None:
    lease = await waiting(stores)
    await stores.pool.execute("UPDATE agent_runs SET created_at = now() - interval '2 hours'")
    await stores.pool.execute("UPDATE attempts SET ended_at = now() - interval '2 hours'")

    async def is_accepted() -> None:
        assert await stores.runs.next_attempt(lease, PLACE) is not None
        await stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])

    log = LateLog(stores.pool, is_accepted)
    reaper = Reaper(
        stores.runs, log, ExpireQuestions(stores.interactions, log), 0.01, 3600, BreakerStore(stores.pool),
        InterruptSession(stores.runs, log), AskToPark(ParkingStore(stores.pool), 0),
    )  # fmt: skip
    async with running(reaper.run()), asyncio.timeout(10):
        await log.wrote.wait()
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert (row.status.value, row.stop_requested_at) == ("running", None)
