"""Breakers in Postgres. They are counted and closed in the transaction of the window that tells of a failure or an answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from control_plane.domain.breaker import PROBE_SECONDS, Breaker, after_failure
from control_plane.domain.news import Locked
from control_plane.domain.recording import Change
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from shared.errors import ErrorCode

_SQL = load("breakers")


class BreakerStore:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def one(self, lender: str, provider: str) -> tuple[Breaker, datetime] | None:
        """The breaker, and the database's clock."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["one"], lender, provider)
        return None if row is None else (_breaker(row), row["now"])

    async def opened(self, lender: str | None) -> list[tuple[str, str, Breaker]]:
        """Lender, provider and breaker of all that are open; of one lender, or of all (None)."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["all"], lender)
        return [(row["lender"], row["provider"], _breaker(row)) for row in rows]

    async def takes_try(self, lender: str, provider: str, run_id: str) -> bool:
        """Whether this run is now the one that tries an open breaker."""
        with storage_errors():
            return await self._pool.fetchval(_SQL["try"], lender, provider, run_id, PROBE_SECONDS) is not None

    async def let_go(self) -> int:
        """Let go of the runs that wait for a breaker which is open no more. Returns how many."""
        with storage_errors():
            return len(await self._pool.fetch(_SQL["let_go"]))

    async def forget(self, lender: str) -> None:
        """Its credentials were changed: what was counted against the old ones says nothing of the new."""
        with storage_errors():
            await self._pool.execute(_SQL["forget"], lender)


async def judge(connection: Any, changes: Sequence[tuple[Locked, Change]]) -> None:
    """Count what a model refused and close what it answered. The pairs are locked in order, like the heads before them."""
    told = [(run, change) for run, change in changes if change.blamed is not None or (run.is_watched and change.was_answered)]
    for run, change in sorted(told, key=lambda each: (each[0].lender, each[0].provider)):
        await connection.execute(_SQL["lock"], run.lender, run.provider)
        if change.blamed is None:
            await connection.execute(_SQL["close"], run.lender, run.provider)
            continue
        row = await connection.fetchrow(_SQL["one"], run.lender, run.provider)
        before = _breaker(row) if row is not None else None
        after = after_failure(before, change.blamed.code, run.run_id, run.now, change.blamed.asks_ms)
        if after is not None and after != before:
            await connection.execute(
                _SQL["put"], run.lender, run.provider, after.code.value, after.failures, after.since, after.opened_at,
                after.try_at, after.trying, after.rests,
            )  # fmt: skip


def _breaker(row: Any) -> Breaker:
    return Breaker(
        ErrorCode(row["error_code"]), row["failures"], row["since"], row["opened_at"], row["try_at"], row["trying"], row["rests"]
    )
