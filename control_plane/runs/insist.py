"""Insisting on an end: a run that is to stop, and whose executor is there but does not end it, is over within a bound.

Every replica looks, and probes before it judges: what its executor calls living, or answers nothing sensible about, time and
again, is ended over its head. By then its driver has let the leash lapse (``deliver``), so that executor and guard end by
themselves what they can. An executor that is not reached, or does not have the attempt, is left to the driver, who counts the
silence, and so is an end that was told and not read yet.
"""

from __future__ import annotations

import asyncio

import structlog

from control_plane.domain.bounds import Bounds
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.run import Stuck
from control_plane.manager_client import ManagerClient, was_not_sent
from control_plane.storage.run_log import Refused, RunLog, Write
from control_plane.storage.runs import RunStore
from shared.clock import Monotonic
from shared.contracts.events import Diagnostic
from shared.errors import ErrorCode, RunyardError
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
        self._lives_since: dict[Stuck, float] = {}  # since this replica first found it so; nothing that fails later moves it

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
            elif await self._may_live(stuck, stuck.executor_id):
                since = self._lives_since.setdefault(stuck, self._now())
                await self._tell(stuck, stuck.executor_id)
                if self._now() - since > self._bounds.lost_after + self._bounds.call:
                    await self._end(stuck, _not_confirmed(stuck))
        except Refused as refusal:
            log.error("insist.refused", run_id=stuck.run_id, reason=str(refusal))
        except RunyardError as error:
            log.info("insist.not_now", run_id=stuck.run_id, reason=str(error))

    async def _may_live(self, stuck: Stuck, executor_id: str) -> bool:
        """Whether its executor says so, or nothing that can be understood. False: its driver will know better."""
        try:
            shown = await self._manager.show(executor_id, stuck.run_id, stuck.attempt, self._bounds.probe)
        except _FAILURES as error:
            log.info("insist.not_shown", run_id=stuck.run_id, reason=str(error))
            return not _is_for_its_driver(error)
        return shown.status != "ended"

    async def _tell(self, stuck: Stuck, executor_id: str) -> None:
        """Once more, whether it is heard or not."""
        try:
            await self._manager.stop(executor_id, stuck.run_id, stuck.attempt)
        except _FAILURES as error:
            log.info("insist.not_told", run_id=stuck.run_id, reason=str(error))

    async def _end(self, stuck: Stuck, event: Diagnostic | None) -> None:
        """The lease goes with this write: whatever its driver still hears finds no row."""
        log.error("insist.ended", run_id=stuck.run_id, attempt=stuck.attempt, executor_id=stuck.executor_id)
        await self._run_log.write([Write(stuck.run_id, [Move(Signal.STOPPED, event=event)])])


def _is_for_its_driver(error: Exception) -> bool:
    """Not reached, or not there: the stream that its driver reads breaks off too, and the attempt is counted as lost."""
    if isinstance(error, (RunyardError, NeverSentError)) and was_not_sent(error):
        return True
    return isinstance(error, RunyardError) and error.code is ErrorCode.NOT_FOUND


def _not_confirmed(stuck: Stuck) -> Diagnostic:
    message = f"executor {stuck.executor_id} was to stop attempt {stuck.attempt} and never did; its engine may live on unheard"
    return Diagnostic(code="end_not_confirmed", severity="error", message=message)
