"""The connection pool: made here, opened by the app's lifespan. Nobody waits for one of its connections without a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from control_plane.domain.bounds import Bounds

WAIT_SECONDS = Bounds().acquire
COMMAND_SECONDS = 10.0
SILENT_SECONDS = 3.0
CLOSE_SECONDS = 3.0


class BoundedPool(asyncpg.Pool):
    """A pool whose every way to a connection ends within ``wait_seconds``, in ``TimeoutError``."""

    def __init__(self, dsn: str, wait_seconds: float, **given: Any) -> None:
        super().__init__(
            dsn, max_queries=50_000, loop=None, connection_class=asyncpg.Connection, record_class=asyncpg.Record, **given
        )
        self._wait_seconds = wait_seconds

    async def _acquire(self, timeout: float | None) -> Any:
        """All of asyncpg's ways come through here. Its own timeout can swallow that the waiting task is canceled."""
        async with asyncio.timeout(self._wait_seconds if timeout is None else timeout):
            return await super()._acquire(None)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


def make_pool(
    dsn: str, size: int = 10, command_seconds: float = COMMAND_SECONDS, wait_seconds: float = WAIT_SECONDS
) -> asyncpg.Pool:
    """Not connected until it is entered. Every statement is bounded, and so is every wait for a connection.

    A transaction that says nothing for ``SILENT_SECONDS`` is ended by the server: a process that froze in one would hold
    its rows, and with them their runs and everybody's renewals, for as long as its connection seems to live.
    """
    return BoundedPool(
        dsn,
        wait_seconds,
        min_size=1,
        max_size=size,
        timeout=5,
        command_timeout=command_seconds,
        max_inactive_connection_lifetime=300,
        reset=_left_as_it_was,
        server_settings={
            "application_name": "runyard-control-plane",
            "idle_in_transaction_session_timeout": f"{SILENT_SECONDS * 1000:.0f}",
        },
    )


async def _left_as_it_was(_connection: object) -> None:
    """Nothing here changes a session (no SET, no cursor, no lock beyond its transaction), so no round trip undoes it.

    A transaction that is still open is rolled back before this is called.
    """


@asynccontextmanager
async def opened(pool: asyncpg.Pool) -> AsyncGenerator[None]:
    """Open inside the block. A database that does not answer the farewell is left without one."""
    await pool
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()
