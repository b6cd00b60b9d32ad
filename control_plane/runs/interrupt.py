"""Interrupting a workspace: the runs before one that interrupts are asked to stop, and it follows when they are over."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.news import Stop
from control_plane.storage.run_log import Refused, RunLog, Write
from control_plane.storage.runs import RunStore
from shared.errors import ErrorCode

log = structlog.get_logger("interrupt")


@dataclass(frozen=True, slots=True)
class InterruptSession:
    """That a run interrupts stands in its row: whoever made it calls this at once, and the sweeper for those that could not."""

    runs: RunStore
    run_log: RunLog

    async def __call__(self, by: str | None = None) -> None:
        """Ask the living runs before ``by`` to stop; None: before every queued run that interrupts."""
        for run_id, interrupting in await self.runs.interrupted(by):
            stop = Stop(ErrorCode.USER_CANCELED, f"interrupted by {interrupting}, a later run in its workspace")
            try:
                await self.run_log.write([Write(run_id, [stop])])
            except Refused as refusal:
                log.error("interrupt.refused", run_id=run_id, reason=str(refusal))
