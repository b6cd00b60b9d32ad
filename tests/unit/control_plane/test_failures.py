"""What asyncpg may raise when its server dies, is not there yet or does not answer: to everybody else it is one thing."""

from __future__ import annotations

import asyncpg
import pytest

from control_plane.storage.failures import storage_errors
from shared.errors import ErrorCode, RunyardError


@pytest.mark.parametrize("error", [
    ConnectionResetError(), TimeoutError(), asyncpg.InterfaceError("connection is closed"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_a_database_that_dies_under_a_call_is_one_that_did_not_answer(error: Exception) -> None:
    with pytest.raises(RunyardError) as raised, storage_errors():
        raise error
    assert raised.value.code is ErrorCode.STORAGE_UNAVAILABLE
