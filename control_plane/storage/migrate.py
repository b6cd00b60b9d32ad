"""Applies the migrations: plain SQL files, one advisory lock, one transaction a file, checksums kept.

The files and the table ``schema_migrations`` are in dbmate's format, so an operator may run dbmate on the same folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from time import monotonic

import asyncpg

FOLDER = Path(__file__).with_name("migrations")
FLOOR = 15
WAIT_SECONDS = 600.0  # for another one that migrates, or for a table that is in use
# Whoever comes to a table later waits behind the change that waits for it: so not for long, and then they are let by.
_TABLE_SECONDS = 1.0
_PAUSE_SECONDS = 2.0
_SILENT_SECONDS = 30  # between two statements; whoever is frozen there loses its lock, so that another one can go on
_STATEMENT_SECONDS = 3600.0
_LOCK = 7_204_115
_UP = re.compile(r"^--\s*migrate:up(?P<options>[^\n]*)$(?P<sql>.*?)(?=^--\s*migrate:down|\Z)", re.M | re.S)


class MigrationError(Exception):
    """A file that cannot be applied, or one that was changed after it was."""


async def migrate(dsn: str, folder: Path = FOLDER, wait_seconds: float = WAIT_SECONDS) -> list[str]:
    """Bring the database up to date; several may call at once. Returns the versions applied now, oldest first.

    Raises ``MigrationError`` for a changed or empty file, a server older than PostgreSQL 15, or a lock that somebody else has
    held for ``wait_seconds``.
    """
    session = {
        "lock_timeout": f"{wait_seconds * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{_SILENT_SECONDS}s",
    }
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=_STATEMENT_SECONDS, server_settings=session)
    try:
        return await _migrate(connection, _files(folder), wait_seconds)
    except asyncpg.LockNotAvailableError:
        raise MigrationError(f"another one migrates, or uses what is to be changed, since {wait_seconds:.0f} s") from None
    finally:
        await connection.close(timeout=_SILENT_SECONDS)


async def _migrate(connection: asyncpg.Connection, files: list[tuple[str, str]], wait_seconds: float) -> list[str]:
    if connection.get_server_version().major < FLOOR:
        raise MigrationError(f"PostgreSQL {FLOOR} or newer is needed, not {connection.get_server_version().major}")
    await connection.execute(f"SET idle_session_timeout = '{_SILENT_SECONDS}s'")  # an older server would refuse the connection
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    await connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version varchar PRIMARY KEY)")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration_sums (version varchar PRIMARY KEY, sha256 text NOT NULL)"
    )
    applied = {row["version"]: row["sha256"] for row in await connection.fetch(
        "SELECT version, sha256 FROM schema_migrations LEFT JOIN schema_migration_sums USING (version)")}  # fmt: skip
    return [version for name, text in files if (version := await _apply(connection, name, text, applied, wait_seconds))]


def _files(folder: Path) -> list[tuple[str, str]]:
    return [(file.name, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.sql"))]


async def _apply(
    connection: asyncpg.Connection, name: str, text: str, applied: dict[str, str | None], wait_seconds: float
) -> str | None:
    version = name.split("_")[0]
    section = _UP.search(text)
    if section is None or not section["sql"].strip():
        raise MigrationError(f"{name}: nothing stands under -- migrate:up")
    sha256 = hashlib.sha256(section["sql"].strip().encode()).hexdigest()
    if version in applied:
        if applied[version] not in (None, sha256):
            raise MigrationError(f"{name}: changed after it was applied")
        return None
    if "transaction:false" in section["options"]:
        await _run(connection, section["sql"], version, sha256)
    else:
        await _run_whole(connection, section["sql"], version, sha256, wait_seconds)
    return version


async def _run_whole(connection: asyncpg.Connection, sql: str, version: str, sha256: str, wait_seconds: float) -> None:
    """In one transaction, tried again for ``wait_seconds`` while what it changes is in use."""
    until = monotonic() + wait_seconds
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_TABLE_SECONDS * 1000:.0f}ms'")
                return await _run(connection, sql, version, sha256)
        except asyncpg.LockNotAvailableError:
            if monotonic() >= until:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _run(connection: asyncpg.Connection, sql: str, version: str, sha256: str) -> None:
    await connection.execute(sql)
    await connection.execute("INSERT INTO schema_migrations VALUES ($1)", version)
    await connection.execute("INSERT INTO schema_migration_sums VALUES ($1, $2)", version, sha256)
