"""The databases tests are given: fresh, migrated, and apart from each other."""

from __future__ import annotations

import asyncpg


async def test_a_test_database_is_migrated(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM schema_migrations") > 0
        await connection.execute("CREATE TABLE left_behind ()")
    finally:
        await connection.close()


async def test_a_test_database_is_of_this_test_only(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
    finally:
        await connection.close()
