"""Where asyncpg's exceptions enter, they become ours. Nobody else catches them."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

import asyncpg
import structlog

from shared.errors import ErrorCode, RunyardError, invalid

log = structlog.get_logger("storage")

# The database went away, refused us for now, or did not answer in time; whether a commit happened is unknown.
LOST_CONNECTION: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what becomes of a connection whose server dies while it is made or left
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidTransactionStateError,  # ended for its silence, or a standby that takes no writes
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.LockNotAvailableError,
)
_COLUMN_CHECK = re.compile(r"_(\w+)_check$")


@contextmanager
def lost_connection() -> Generator[None]:
    """Translate an absent database into ``storage_unavailable``; every other error passes."""
    try:
        yield
    except LOST_CONNECTION as error:
        raise RunyardError(
            ErrorCode.STORAGE_UNAVAILABLE, f"the database did not answer ({type(error).__name__})", retry_after=1
        ) from error


@contextmanager
def storage_errors() -> Generator[None]:
    """``lost_connection``, and a value no column takes (a NUL, a year 0) as ``invalid_request``.

    A refused row is our bug, ``internal``; its own text is left out, since it holds the row.
    """
    try:
        with lost_connection():
            yield
    except asyncpg.DataError as error:
        raise RunyardError(ErrorCode.INVALID_REQUEST, "a value cannot be stored or looked for") from error
    except asyncpg.CheckViolationError as error:
        column = _COLUMN_CHECK.search(error.constraint_name or "")
        if column is None:
            raise _internal(error) from None
        raise invalid(column[1].rpartition("_")[2], "more than can be stored") from None
    except asyncpg.IntegrityConstraintViolationError as error:
        raise _internal(error) from None


def _internal(error: asyncpg.PostgresError) -> RunyardError:
    log.error("storage.refused", error=type(error).__name__, constraint=error.constraint_name)
    return RunyardError(ErrorCode.INTERNAL, f"the database refused a row ({type(error).__name__})")
