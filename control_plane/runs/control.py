"""Stopping: the wish is a row first; whoever drives the run delivers it until the process tree is gone."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.domain.news import Stop
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.runs import RunStore
from shared.contracts.runs import StopAnswer
from shared.errors import ErrorCode, RunyardError
from shared.web import Caller


@dataclass(frozen=True, slots=True)
class StopRun:
    """Idempotent: a finished run answers with its status, a stopping one is asked once more in vain."""

    runs: RunStore
    run_log: RunLog

    async def __call__(self, run_id: str, caller: Caller) -> StopAnswer:
        """Raises ``not_found`` for a run that is not the caller's."""
        head = await self.runs.head(run_id)
        if head is None or not caller.may_see(head[1]):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        await self.run_log.write([Write(run_id, [Stop()])])
        row = await self.runs.snapshot(run_id)
        assert row is not None
        return StopAnswer(run_id=run_id, status=row.status, stop_requested_at=row.stop_requested_at)
