"""Further user messages in Postgres: written once, pending until an executor has taken them or the run is over.

They are settled by ``run_log`` together with the event that tells of it; here they are written and read.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from control_plane.domain.messages import Heard
from control_plane.domain.run import IdempotencyKey
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from control_plane.storage.wakeups import Channel, Tell, nobody
from shared.contracts.runs import TERMINAL, RunStatus
from shared.errors import ErrorCode, RunyardError

_SQL = load("messages")
MAX_WAITING = 100


class NewMessage(NamedTuple):
    """A message about to be written; ``app_id`` is its sender's, where the idempotency key is unique."""

    run_id: str
    message_id: str
    text: str
    app_id: str | None
    sent_by: str | None


class StoredMessage(NamedTuple):
    """``is_repeat``: the idempotency key had made it before."""

    message_id: str
    status: str
    created_at: datetime
    is_repeat: bool


class PendingMessage(NamedTuple):
    message_id: str
    text: str


class MessageStore:
    """``tell`` hears of messages that wait for delivery, after their commit."""

    def __init__(self, pool: asyncpg.Pool, tell: Tell = nobody) -> None:
        self._pool = pool
        self._tell = tell

    async def add(self, message: NewMessage, key: IdempotencyKey | None) -> StoredMessage:
        """Write the message, or find the one the key has made.

        Raises ``conflict`` for a run that is over, ``idempotency_conflict``, and ``queue_full`` where too many wait.
        """
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if key is not None and not await self._take_key(connection, message, key):
                    return _same_body(await connection.fetchrow(_SQL["of_key"], message.app_id or "", key.key), key)
                await connection.execute(_SQL["lock_head"], message.run_id)
                await self._must_take(connection, message.run_id)
                at = await connection.fetchval(
                    _SQL["add"], message.run_id, message.message_id, json.dumps({"text": message.text}), message.sent_by,
                    key.key if key is not None else None,
                )  # fmt: skip
        self._tell(Channel.INTENTS, message.run_id)
        return StoredMessage(message.message_id, "pending", at, is_repeat=False)

    async def to_hand_over(self, run_id: str, attempt: int) -> list[PendingMessage]:
        """For the living engine of this attempt, oldest first: what did not travel with its start."""
        return await self._pending(run_id, attempt, carried=False)

    async def carried(self, run_id: str, attempt: int) -> list[PendingMessage]:
        """What travels with the start of this attempt, oldest first."""
        return await self._pending(run_id, attempt, carried=True)

    async def heard(self, run_id: str, attempt: int) -> list[Heard]:
        """What engines of attempts before this one have taken, oldest first."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["heard"], run_id, attempt)
        return [Heard(row["attempt"], row["created_at"], json.loads(row["content"])["text"]) for row in rows]

    async def _pending(self, run_id: str, attempt: int, carried: bool) -> list[PendingMessage]:
        with storage_errors():
            rows = await self._pool.fetch(_SQL["pending"], run_id, attempt, carried)
        return [PendingMessage(row["message_id"], json.loads(row["content"])["text"]) for row in rows]

    async def _take_key(self, connection: Any, message: NewMessage, key: IdempotencyKey) -> bool:
        taken = await connection.fetchval(_SQL["take_key"], message.app_id or "", key.key, key.body_sha256, message.run_id)
        return taken is not None

    async def _must_take(self, connection: Any, run_id: str) -> None:
        """Under the lock of the run's head."""
        status = RunStatus(await connection.fetchval(_SQL["status"], run_id))
        if status in TERMINAL or status is RunStatus.STOPPING:
            raise RunyardError(ErrorCode.CONFLICT, f"the run is {status}; it takes no more messages", extra={"runStatus": status})
        if await connection.fetchval(_SQL["waiting"], run_id) >= MAX_WAITING:
            raise RunyardError(ErrorCode.QUEUE_FULL, f"{MAX_WAITING} messages wait for this run already", retry_after=1)


def _same_body(row: Any, key: IdempotencyKey) -> StoredMessage:
    if row["body_sha256"] != key.body_sha256 or row["message_id"] is None:
        raise RunyardError(ErrorCode.IDEMPOTENCY_CONFLICT, "this Idempotency-Key came with another body before")
    return StoredMessage(row["message_id"], row["status"], row["created_at"], is_repeat=True)
