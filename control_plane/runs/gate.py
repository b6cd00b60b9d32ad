"""The gate before an executor: whether a breaker keeps a run back whose credentials or pace the model refuses."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Hold, Move
from control_plane.domain.run import DrivenRun, Lease
from control_plane.runs.record import Recorder
from control_plane.storage.breakers import BreakerStore
from shared.contracts.events import Diagnostic

log = structlog.get_logger("gate")

SHORTEST_WAIT_SECONDS = 1.0
TRYING_SECONDS = 10.0  # between two looks at a try that works; who is held is let go when it closes the breaker


@dataclass(frozen=True, slots=True)
class Gate:
    """One use case: ``await gate(lease, run)`` before a run is placed."""

    breakers: BreakerStore
    recorder: Recorder

    async def __call__(self, lease: Lease, run: DrivenRun) -> bool:
        """False: it may go on, maybe as the one that tries. True: it has ended, or waits without a driver.

        Raises ``LeaseLost``.
        """
        if not run.meets_breaker or await self.breakers.takes_try(run.lender, run.provider, run.run_id):
            return False
        found = await self.breakers.one(run.lender, run.provider)
        if found is None or not found[0].is_open:
            return False  # it closed a moment ago
        breaker, now = found
        if breaker.refuses(now):
            await self.recorder.record(lease, [Move(Signal.START_REFUSED, breaker.code, breaker.said())])
            return True
        wait = TRYING_SECONDS if breaker.trying else SHORTEST_WAIT_SECONDS
        if breaker.try_at is not None:
            wait = max(wait, (breaker.try_at - now).total_seconds())
        said = f"it waits for {run.provider}, which was refused {breaker.said()}"
        held = await self.recorder.record(lease, [Hold(wait, Diagnostic(code="provider_paused", message=said))])
        if held.events:
            log.info("gate.held", run_id=run.run_id, provider=run.provider, code=breaker.code)
        return True
