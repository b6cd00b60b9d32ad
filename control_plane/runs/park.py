"""Parking: a run that has waited long for a person gives its process and its executor's slot back until the reply.

The wish is a row of its attempt; it is carried out by the executor alone, and only as long as its engine waits for exactly
what we know of. So a reply is handed to the living engine or told to the next attempt, never both.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.run import DrivenRun, Placement
from control_plane.manager_client import ManagerClient, was_not_sent
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.parking import ParkingStore
from shared.contracts.provider_runs import ParkRun
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode, RunyardError

log = structlog.get_logger("park")

# An older executor does not know the route, an older manager neither.
_NEVER = frozenset({ErrorCode.CAPABILITY_UNAVAILABLE, ErrorCode.NOT_FOUND, ErrorCode.INVALID_REQUEST})


@dataclass(frozen=True, slots=True)
class AskToPark:
    """One sweep of it. ``after_seconds`` 0: no run is parked."""

    parking: ParkingStore
    after_seconds: float

    async def __call__(self) -> None:
        if self.after_seconds > 0:
            for run_id in await self.parking.ask(self.after_seconds):
                log.info("park.asked", run_id=run_id)


@dataclass(frozen=True, slots=True)
class DeliverParking:
    parking: ParkingStore
    interactions: InteractionStore
    manager: ManagerClient

    async def __call__(self, run: DrivenRun, placement: Placement) -> None:
        """Tell the executor. Repeating is safe. Raises as ``ManagerClient``; the next call tries again.

        A reply on its way goes first, and a run that no longer waits is let be.
        """
        if run.status is not RunStatus.WAITING_USER:
            await self.parking.refused(run.run_id, run.attempt, for_good=False)
            return
        if await self.interactions.answered(run.run_id) or not (waits_for := await self.interactions.open_ids(run.run_id)):
            return
        try:
            await self.manager.park(placement.executor_id, run.run_id, run.attempt, ParkRun(question_ids=waits_for))
        except RunyardError as error:
            if was_not_sent(error) or error.code not in {*_NEVER, ErrorCode.CONFLICT}:
                raise
            log.info("park.refused", run_id=run.run_id, attempt=run.attempt, reason=error.detail)
            await self.parking.refused(run.run_id, run.attempt, for_good=error.code in _NEVER)
