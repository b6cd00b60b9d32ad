"""The connection pool: made here, opened by the app's lifespan."""

from __future__ import annotations

import asyncpg

COMMAND_SECONDS = 10


def make_pool(dsn: str, size: int = 10) -> asyncpg.Pool:
    """Not connected until it is entered. Every statement is bounded."""
    return asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        timeout=5,
        command_timeout=COMMAND_SECONDS,
        max_inactive_connection_lifetime=300,
        server_settings={"application_name": "runyard-control-plane"},
    )
