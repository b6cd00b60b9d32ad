"""That a waiting run is to be parked, in Postgres: asked for by a sweeper, delivered by whoever drives the run.

It moves no status and writes no event: the attempt's end does, when its executor has done it.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from control_plane.storage.wakeups import Channel, Tell, nobody

_SQL = load("parking")


class ParkingStore:
    """``tell`` hears of runs that are to be parked, after their commit."""

    def __init__(self, pool: asyncpg.Pool, tell: Tell = nobody) -> None:
        self._pool = pool
        self._tell = tell

    async def ask(self, waited_seconds: float) -> list[str]:
        """Ask that runs are parked which have waited for a person for so long. Returns those that were not asked for before."""
        with storage_errors():
            waiting = [row["run_id"] for row in await self._pool.fetch(_SQL["waiting"], waited_seconds)]
            if not waiting:
                return []
            async with self._pool.acquire() as connection, connection.transaction():
                locked = await self._locked(connection, waiting)
                asked = [row["run_id"] for row in await connection.fetch(_SQL["ask"], locked, waited_seconds)]
        for run_id in asked:
            self._tell(Channel.INTENTS, run_id)
        return asked

    async def _locked(self, connection: Any, run_ids: list[str]) -> list[str]:
        return [row["run_id"] for row in await connection.fetch(_SQL["lock_heads"], run_ids)]

    async def refused(self, run_id: str, attempt: int, for_good: bool) -> None:
        """Its executor did not do it; ``for_good``: nor will it ever, and this attempt is not asked again."""
        with storage_errors():
            await self._pool.execute(_SQL["settle"], run_id, attempt, "refused" if for_good else None)
