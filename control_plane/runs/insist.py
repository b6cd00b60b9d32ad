"""Insisting on an end: a run that is to stop, and whose executor answers but does not end it, is over within a bound.

Every replica looks, and probes before it judges: only what its executor calls living, time and again, is ended over its head.
By then its driver has let the leash lapse (``deliver``), so that executor and guard end by themselves what they can. An
executor that does not answer is left to the driver, who counts its silence, and so is an end that was told and not read yet.
"""

from __future__ import annotations

import asyncio

import structlog

from control_plane.domain.bounds import Bounds
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.run import Stuck
from control_plane.manager_client import ManagerClient
from control_plane.storage.run_log import Refused, RunLog, Write
from control_plane.storage.runs import RunStore
from shared.clock import Monotonic
from shared.contracts.events import Diagnostic
from shared.errors import RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("insist")

_FAILURES = (NeverSentError, UnknownOutcomeError, RunyardError)


class InsistOnEnd:
    """``run`` until cancelled. Several may run beside each other: a run that is over absorbs the other's word."""

    def __init__(self, runs: RunStore, run_log: RunLog, manager: ManagerClient, bounds: Bounds, monotonic: Monotonic) -> None:
        self._runs = runs
        self._run_log = run_log
        self._manager = manager
        self._bounds = bounds
        self._now = monotonic
        self._lives_since: dict[Stuck, float] = {}  # since this replica told its executor once more

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._bounds.sweep_every)
            try:
                await self._sweep()
            except RunyardError as error:
                log.warning("insist.failed", reason=str(error))

    async def _sweep(self) -> None:
        stuck = await self._runs.stuck(self._bounds.stop)
        self._lives_since = {each: since for each, since in self._lives_since.items() if each in stuck}
        async with asyncio.TaskGroup() as tasks:
            for each in stuck:
                tasks.create_task(self._one(each))

    async def _one(self, stuck: Stuck) -> None:
        try:
            if stuck.executor_id is None:
                await self._end(stuck, None)  # nothing of it can begin any more
            elif await self._lives(stuck, stuck.executor_id):
                since = self._lives_since.setdefault(stuck, self._now())
                if self._now() - since > self._bounds.lost_after + self._bounds.call:
                    await self._end(stuck, _not_confirmed(stuck))
        except Refused as refusal:
            log.error("insist.refused", run_id=stuck.run_id, reason=str(refusal))
        except _FAILURES as error:
            log.info("insist.not_now", run_id=stuck.run_id, reason=str(error))

    async def _lives(self, stuck: Stuck, executor_id: str) -> bool:
        """Whether its executor says so, and was told to stop it once more. Raises as ``ManagerClient``."""
        shown = await self._manager.show(executor_id, stuck.run_id, stuck.attempt, self._bounds.probe)
        if shown.status == "ended":
            return False
        await self._manager.stop(executor_id, stuck.run_id, stuck.attempt)
        return True

    async def _end(self, stuck: Stuck, event: Diagnostic | None) -> None:
        """The lease goes with this write: whatever its driver still hears finds no row."""
        log.error("insist.ended", run_id=stuck.run_id, attempt=stuck.attempt, executor_id=stuck.executor_id)
        await self._run_log.write([Write(stuck.run_id, [Move(Signal.STOPPED, event=event)])])


def _not_confirmed(stuck: Stuck) -> Diagnostic:
    message = f"executor {stuck.executor_id} was told to stop attempt {stuck.attempt} and has not; its engine may live on unheard"
    return Diagnostic(code="end_not_confirmed", severity="error", message=message)
