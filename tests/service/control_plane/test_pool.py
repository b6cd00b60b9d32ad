"""A wait for one of the pool's connections comes to an end, at whatever call."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from control_plane.storage.pool import make_pool
from control_plane.storage.runs import RunStore
from shared.errors import ErrorCode, RunyardError
from tests.service.control_plane.conftest import QUICK, Stores, replica_at
from tests.service.control_plane.fake_manager import FakeManager


async def test_who_finds_no_free_connection_learns_it_within_a_bound_and_none_is_lost(database: str) -> None:
    async with make_pool(database, 1, wait_seconds=0.05) as pool:
        runs = RunStore(pool)
        async with pool.acquire():
            waiting = await asyncio.wait_for(asyncio.gather(*(runs.head("run_x") for _ in range(20)), return_exceptions=True), 20)
        for error in waiting:
            assert isinstance(error, RunyardError)
            assert (error.code, error.retry_after) == (ErrorCode.STORAGE_UNAVAILABLE, 1)
        assert await runs.head("run_x") is None
        assert (pool.get_size(), pool.get_idle_size()) == (1, 1)


async def test_who_is_canceled_while_it_waits_for_a_connection_is_canceled(database: str) -> None:
    async with make_pool(database, 1, wait_seconds=20) as pool, pool.acquire():
        waiting = asyncio.create_task(pool.fetchval("SELECT 1"))
        await asyncio.sleep(0)  # it waits now
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_caller_is_told_to_come_back_while_all_connections_are_taken(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url, bounds=replace(QUICK, acquire=0.5), pool_size=2) as replica:
        async with stores.pool.acquire() as other, asyncio.TaskGroup() as readers, other.transaction():
            await other.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await other.execute("LOCK TABLE apps IN ACCESS EXCLUSIVE MODE")
            for _ in range(2):
                readers.create_task(replica.http.get("/api/apps"))
            async with asyncio.timeout(10):
                while (refused := await replica.http.get("/api/runs")).status_code == 200:
                    await asyncio.sleep(0.01)  # polling a condition with a bound
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "storage_unavailable", "1")
        assert (await replica.http.get("/api/runs")).status_code == 200
