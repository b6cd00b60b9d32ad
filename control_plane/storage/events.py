"""Reading the event log and raw output back. Pages are ranges of cursors; a range of bytes is exact."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import asyncpg

from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load

_SQL = load("events")
END = 2**62
PAGE_BYTES = 16 * 1024 * 1024


class StoredEvent(NamedTuple):
    """One row of the log; ``data`` and ``raw_ref`` are JSON text as written."""

    cursor: int
    attempt: int
    kind: str
    at: datetime
    data: str
    raw_ref: str | None


class EventStore:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def page(
        self, run_id: str, after: int, limit: int, before: int = END, max_bytes: int = PAGE_BYTES
    ) -> list[StoredEvent]:
        """Events with ``after < cursor < before``, oldest first; none more once their payloads have passed ``max_bytes``.

        Of trimmed history there is one ``stream.gap`` at its last cursor, before the rest and beyond ``limit``.
        """
        with storage_errors():
            return [StoredEvent(*row) for row in await self._pool.fetch(_SQL["page"], run_id, after, before, limit, max_bytes)]

    async def raw_held(self, run_id: str, attempt: int, stream: str) -> tuple[int, int]:
        """How many bytes a stream held, and how many of them, from the first on, are no longer kept."""
        with storage_errors():
            (row,) = await self._pool.fetch(_SQL["raw_held"], run_id, attempt, stream)
        return row["total"], row["gone"]

    async def raw_range(self, run_id: str, attempt: int, stream: str, byte_from: int, byte_to: int) -> bytes:
        """The bytes [byte_from, byte_to) of a stream, as far as they are stored."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["raw_range"], run_id, attempt, stream, byte_from, byte_to)
        if not rows:
            return b""
        start: int = rows[0]["byte_from"]
        return b"".join(row["bytes"] for row in rows)[max(byte_from - start, 0) : byte_to - start]
