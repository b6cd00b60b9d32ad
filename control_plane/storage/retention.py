"""What goes of finished runs, in Postgres: small transactions, one replica at a time, never a run that is not over.

What is gone is marked in one commit and deleted in later ones: a reader finds all of it, or the word that it is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from control_plane.domain.retention import Keep
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from shared.contracts.apps import Retention
from shared.errors import RunyardError

_SQL = load("retention")
RUNS_A_BATCH = 100
DELETED_RUNS_A_BATCH = 20
EVENTS_A_BATCH = 2_000
CHUNKS_A_BATCH = 200  # of raw output, 64 KiB at most
LEFT_A_BATCH = 50
THE_FLEET = ""  # whoever of it answers: the snapshots are everybody's


class NotOurTurnError(Exception):
    """Another replica sweeps at this moment."""


@dataclass(frozen=True, slots=True)
class LeftWorkspace:
    """A workspace no run needs any more, and the deleted runs that may have left files in it at one executor."""

    key: str
    executor_id: str
    run_ids: tuple[str, ...]


class RetentionStore:
    """Every step is one transaction, and raises ``NotOurTurnError`` while another replica takes one. A count that is less than
    the step's batch says that there is no more to do."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._weighed_at_once = RUNS_A_BATCH

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[Any]:
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if not await connection.fetchval(_SQL["take_turn"]):
                    raise NotOurTurnError
                yield connection

    async def is_wanted(self, default: Keep) -> bool:
        """Whether anything is ever to go, by the operator's settings or by an app's record."""
        if default.lets_go:
            return True
        with storage_errors():
            return await self._pool.fetchval(_SQL["any_word"])

    async def weigh(self) -> bool:
        """Take up runs that have ended: half as many where counting what they hold took too long. True: there may be more."""
        batch = self._weighed_at_once
        try:
            async with self._turn() as connection:
                weighed = len(await connection.fetch(_SQL["weigh"], batch))
        except RunyardError as error:
            if batch == 1 or not isinstance(error.__cause__, TimeoutError):
                raise
            self._weighed_at_once = batch // 2
            return True
        self._weighed_at_once = min(batch + 1, RUNS_A_BATCH)
        return weighed == batch

    async def keeps(self, default: Keep) -> dict[str, Keep]:
        """What applies to each app that has finished runs; "" is the operator's own."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["apps"])
        said = {row["app_id"]: row["retention"] for row in rows}
        return {app_id: default.of(Retention.model_validate_json(text)) if text else default for app_id, text in said.items()}

    # ---- what goes: marked first ----

    async def mark_old(self, what: str, app_id: str, seconds: float) -> int:
        """``what``: ``output`` or ``events``. Of runs that ended so long ago, the oldest first."""
        async with self._turn() as connection:
            return await self._mark(connection, what, await connection.fetch(_SQL[f"old_{what}"], app_id, seconds, RUNS_A_BATCH))

    async def mark_heavy(self, app_id: str, max_bytes: int, untouched_seconds: float) -> int:
        """Until what is left weighs no more: output first, then events. Never of runs that ended a moment ago."""
        async with self._turn() as connection:
            excess = await connection.fetchval(_SQL["weight"], app_id) - max_bytes
            if excess <= 0:
                return 0
            for what in ("output", "events"):
                rows = await connection.fetch(_SQL[f"heavy_{what}"], app_id, excess, RUNS_A_BATCH, untouched_seconds)
                if rows:
                    return await self._mark(connection, what, rows)
            return 0

    async def _mark(self, connection: Any, what: str, rows: Sequence[Any]) -> int:
        if rows:
            await connection.execute(_SQL[f"mark_{what}"], [row["run_id"] for row in rows])
        return len(rows)

    # ---- deleted afterwards ----

    async def delete_output(self) -> bool:
        """Some of what was marked. True: there may be more."""
        return await self._delete("output", CHUNKS_A_BATCH)

    async def delete_events(self) -> bool:
        """Some of what was marked. True: there may be more."""
        return await self._delete("events", EVENTS_A_BATCH)

    async def _delete(self, what: str, limit: int) -> bool:
        async with self._turn() as connection:
            deleted = int((await connection.execute(_SQL[f"delete_{what}"], limit)).split()[-1])
            if deleted < limit:
                await connection.execute(_SQL[f"settle_{what}"])
            return deleted >= limit

    async def delete_runs(self, app_id: str, seconds: float, keeps: Mapping[str, Keep]) -> int:
        """Whole runs that ended so long ago and that nobody goes on from, with the word to their executors."""
        ages = {each: keep.runs_seconds for each, keep in keeps.items()}
        async with self._turn() as connection:
            rows = await connection.fetch(
                _SQL["old_runs"], app_id, seconds, DELETED_RUNS_A_BATCH, list(ages), list(ages.values())
            )
            if run_ids := [row["run_id"] for row in rows]:
                keys = [row["workspace_key"] for row in await connection.fetch(_SQL["workspaces_of"], run_ids)]
                await connection.execute(_SQL["leave_workspaces"], run_ids)
                await connection.execute(_SQL["delete_runs"], run_ids)
                await connection.execute(_SQL["forget_snapshots"], keys)
            return len(run_ids)

    # ---- workspaces ----

    async def take_left(self, executors: Sequence[str], again_seconds: float) -> list[LeftWorkspace]:
        """Whom of these executors to tell of which workspace. What is not settled comes again."""
        async with self._turn() as connection:
            rows = await connection.fetch(_SQL["take_left"], LEFT_A_BATCH, again_seconds, [THE_FLEET, *executors])
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in rows:
            found[row["workspace_key"], row["executor_id"]].append(row["run_id"])
        return [LeftWorkspace(key, executor_id, tuple(run_ids)) for (key, executor_id), run_ids in found.items()]

    async def has_left(self) -> bool:
        """Whether any executor is still to hear of a workspace."""
        with storage_errors():
            return await self._pool.fetchval(_SQL["has_left"])

    async def is_left(self, workspace_key: str) -> bool:
        """Whether no run needs it, at this moment."""
        with storage_errors():
            return await self._pool.fetchval(_SQL["is_left"], workspace_key)

    async def settle_left(self, left: LeftWorkspace) -> None:
        """Its executor has said that nothing is left of these runs there."""
        with storage_errors():
            await self._pool.execute(_SQL["settle_left"], left.key, left.executor_id, list(left.run_ids))

    async def give_up_left(self, older_than_seconds: float) -> None:
        """Executors that were away for so long are not waited for any more."""
        with storage_errors():
            await self._pool.execute(_SQL["give_up_left"], older_than_seconds)
