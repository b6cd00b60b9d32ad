"""The sweeper: in every replica, periodic, never in a read path. It asks for ends; it never invents one.

A lapsed lease needs no sweep: the dispatcher's claim is the recovery.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from control_plane.domain.news import Stop
from control_plane.interactions.expire import ExpireQuestions
from control_plane.runs.interrupt import InterruptSession
from control_plane.runs.park import AskToPark
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.run_log import Refused, RunLog, Write
from control_plane.storage.runs import RunStore
from shared.errors import ErrorCode, RunyardError

log = structlog.get_logger("reap")

OVERDUE_GRACE_SECONDS = 10.0
KEEP_IDEMPOTENCY_KEYS_SECONDS = 24 * 3600.0
RARELY = 60


@dataclass(frozen=True, slots=True)
class Reaper:
    runs: RunStore
    run_log: RunLog
    expire: ExpireQuestions
    sweep_every: float
    queue_seconds: float
    breakers: BreakerStore
    interrupt: InterruptSession
    ask_to_park: AskToPark

    async def run(self) -> None:
        """Until cancelled; a sweep that fails is followed by the next."""
        turn = 0
        while True:
            await asyncio.sleep(self.sweep_every)
            try:
                await self._sweep()
                if turn % RARELY == 0:
                    await self.runs.forget_idempotency_keys(KEEP_IDEMPOTENCY_KEYS_SECONDS)
            except RunyardError as error:
                log.warning("reap.failed", reason=str(error))
            turn += 1

    async def _sweep(self) -> None:
        await self.expire()
        await self.breakers.let_go()
        await self.interrupt()
        await self.ask_to_park()
        overdue = await self.runs.overdue(OVERDUE_GRACE_SECONDS, self.queue_seconds)
        for run_id, late in overdue.items():
            log.warning("reap.overdue", run_id=run_id, waited_for=late.waited_for)
            why = f"it waited {self.queue_seconds:.0f} s for {late.waited_for}" if late.waited_for is not None else None
            try:
                await self.run_log.write([Write(run_id, [Stop(ErrorCode.TIMEOUT, why, (late.status, late.attempt))])])
            except Refused as refusal:
                log.error("reap.refused", run_id=run_id, reason=str(refusal))
