"""Questions in Postgres: pending until exactly one reply wins, answered until an executor confirms it.

A question is opened and resolved by ``run_log`` together with its event; here it is answered, listed and expired.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from control_plane.domain.messages import Heard
from control_plane.domain.placing import as_message
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import LIST_BYTES, load
from control_plane.storage.wakeups import Channel, Tell, nobody
from shared.contracts.events import InteractionRequested
from shared.contracts.interactions import Interaction, InteractionStatus, OnExpiry, Reply

_SQL = load("interactions")


class Answered(NamedTuple):
    """A reply on its way: accepted, not confirmed yet."""

    question_id: str
    attempt: int
    request: InteractionRequested
    reply: Reply
    answered_by: str | None


class InteractionStore:
    """``tell`` hears of replies that wait for delivery, after their commit."""

    def __init__(self, pool: asyncpg.Pool, tell: Tell = nobody) -> None:
        self._pool = pool
        self._tell = tell

    async def one(self, run_id: str, question_id: str) -> Interaction | None:
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["one"], run_id, question_id)
        return None if row is None else _interaction(row)

    async def answer(self, run_id: str, question_id: str, reply: Reply, by: str | None, late: bool = False) -> bool:
        """Record the reply if the question is still pending, and in time unless ``late``. False: something was first."""
        text = reply.model_dump_json(by_alias=True, exclude_none=True, include={"answer", "decision", "message"})
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_SQL["lock_head"], run_id)
                if await connection.fetchval(_SQL["answer"], run_id, question_id, text, by, late) is None:
                    return False
                parked = await connection.fetchval(_SQL["wake_parked"], run_id)
        if parked is not None:
            self._tell(Channel.WORK, "")
        self._tell(Channel.INTENTS, run_id)
        return True

    async def answered(self, run_id: str) -> list[Answered]:
        """Replies to deliver, oldest first."""
        with storage_errors():
            return [_answered(row) for row in await self._pool.fetch(_SQL["answered"], run_id)]

    async def carried(self, run_id: str, attempt: int) -> list[Answered]:
        """Replies that travel with the start of this attempt, oldest first."""
        with storage_errors():
            return [_answered(row) for row in await self._pool.fetch(_SQL["carried"], run_id, attempt)]

    async def heard(self, run_id: str, attempt: int) -> list[Heard]:
        """Answers that engines of attempts before this one have taken, in words, oldest first."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["heard"], run_id, attempt)
        return [
            Heard(
                row["attempt"],
                row["answered_at"],
                as_message(InteractionRequested.model_validate_json(row["request"]), Reply.model_validate_json(row["answer"])),
            )
            for row in rows
        ]

    async def open_ids(self, run_id: str) -> list[str]:
        """Questions of a run that still wait for a reply."""
        with storage_errors():
            return [row["question_id"] for row in await self._pool.fetch(_SQL["open_ids"], run_id)]

    async def expired(self) -> list[tuple[str, str, OnExpiry]]:
        """(run id, question id, what then) of questions nobody answered in time."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["expired"])
        return [(row["run_id"], row["question_id"], OnExpiry(row["on_expiry"])) for row in rows]

    async def page(
        self,
        app_id: str | None,
        status: InteractionStatus | None,
        run_id: str | None,
        after: tuple[datetime, str, str] | None,
        limit: int,
    ) -> tuple[list[Interaction], bool]:
        """Oldest first, from after (created_at, run id, question id), and whether more follow: as in the list of runs."""
        at, after_run, after_question = after or (None, None, None)
        with storage_errors():
            rows = await self._pool.fetch(
                _SQL["list"], app_id, status, run_id, at, after_run, after_question, limit + 1, LIST_BYTES
            )
        shown = rows[:limit]
        return [_interaction(row) for row in shown], bool(shown) and len(shown) < shown[0]["found"]


def _answered(row: Any) -> Answered:
    return Answered(
        row["question_id"],
        row["attempt"],
        InteractionRequested.model_validate_json(row["request"]),
        Reply.model_validate_json(row["answer"]),
        row["answered_by"],
    )


def _interaction(row: Any) -> Interaction:
    asked = InteractionRequested.model_validate_json(row["request"])
    return Interaction(
        run_id=row["run_id"],
        question_id=row["question_id"],
        attempt=row["attempt"],
        status=InteractionStatus(row["status"]),
        type=asked.type,
        prompt=asked.prompt,
        options=asked.options,
        schema=asked.schema_,
        tool=asked.tool,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        on_expiry=OnExpiry(row["on_expiry"]),
        expiry_answer=asked.expiry_answer,
        answer=json.loads(row["answer"]) if row["answer"] else None,
        answered_by=row["answered_by"],
        answered_at=row["answered_at"],
    )
