"""Snapshots in Postgres, read: who worked in a workspace last, and what another executor can go on from.

They are written by ``run_log``, with the events of the attempt that left them.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from control_plane.domain.run import DrivenRun
from control_plane.domain.standing import NO_WORK, NOBODY_YET, AttemptName, Snapshot, Standing
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from shared.contracts.events import EventRef

_SQL = load("snapshots")
_NO_WORK = sorted(NO_WORK)


class SnapshotStore:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def standing(self, run: DrivenRun, attempt: int) -> Standing:
        """Before this attempt of the run begins. A run that had none, in a workspace of its own, costs no question."""
        if attempt == 1 and run.workspace_key == run.run_id:
            return NOBODY_YET
        place = (run.workspace_key, run.run_id, attempt)
        with storage_errors():
            async with self._pool.acquire() as connection:
                attempts = await connection.fetch(_SQL["newest_attempts"], *place, _NO_WORK)
                if not attempts:
                    return NOBODY_YET
                row = await connection.fetchrow(_SQL["snapshot"], run.workspace_key, run.resume_session)
                snapshot = Snapshot(**row) if row is not None else None
                known = (snapshot.run_id, snapshot.attempt, snapshot.cursor) if snapshot is not None else (None, None, None)
                lost = await connection.fetchrow(_SQL["lost_from"], *place, *known, _NO_WORK)
        newest = _newest(attempts)
        return Standing(
            newest=tuple(AttemptName(row["run_id"], row["attempt"]) for row in newest),
            newest_at=newest[-1]["executor_id"],
            snapshot=snapshot,
            lost_from=EventRef(run_id=lost["run_id"], cursor=lost["cursor"]) if lost is not None else None,
            is_own=attempts[0]["is_own"],
        )


def _newest(attempts: list[Any]) -> list[Any]:
    """Down to the last one that surely worked. Those after it may have begun or not: they changed nothing anybody was told of."""
    surely = next((at for at, row in enumerate(attempts) if row["has_worked"]), len(attempts) - 1)
    return attempts[: surely + 1]
