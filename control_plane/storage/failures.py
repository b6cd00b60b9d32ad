"""Where asyncpg's exceptions enter, they become ours. Nobody else catches them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from shared.errors import ErrorCode, RunyardError

# The database went away, refused us for now, or did not answer in time; whether a commit happened is unknown.
LOST_CONNECTION: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.TransactionRollbackError,
)


@contextmanager
def storage_errors() -> Generator[None]:
    """Translate an absent database into ``storage_unavailable``; every other error passes."""
    try:
        yield
    except LOST_CONNECTION as error:
        raise RunyardError(ErrorCode.STORAGE_UNAVAILABLE, f"the database did not answer ({type(error).__name__})") from error
