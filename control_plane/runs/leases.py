"""Our leases: renewed all at once by one statement, on a connection of its own.

A lease that another replica took is gone at once; a database that does not answer takes nothing away: every write proves
the lease again, and an engine must not die because Postgres restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from control_plane.domain.run import Lease
from control_plane.storage.runs import RunStore
from shared.errors import RunyardError

SETTLE_SECONDS = 0.1

log = structlog.get_logger("leases")


class Leases:
    """``runs`` must stand on a pool of its own, so that a busy pool never delays a renewal."""

    def __init__(self, runs: RunStore, lease_seconds: float, renew_every: float) -> None:
        self._runs = runs
        self.seconds = lease_seconds
        self._renew_every = renew_every
        self._held: dict[str, tuple[Lease, Callable[[], object]]] = {}

    def hold(self, lease: Lease, on_lost: Callable[[], object]) -> None:
        """Renew it from now on; ``on_lost`` is called once when it turns out to be somebody else's."""
        self._held[lease.run_id] = (lease, on_lost)

    def drop(self, lease: Lease) -> None:
        """It is given back, or went with a write of ours: nobody takes that for a loss."""
        if self._held.get(lease.run_id, (None,))[0] == lease:
            del self._held[lease.run_id]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._renew_every)
            if self._held:
                await self._renew()

    async def _renew(self) -> None:
        asked = list(self._held.values())
        try:
            ours = await self._runs.renew([lease for lease, _ in asked], self.seconds)
        except RunyardError as error:
            log.warning("leases.not_renewed", runs=len(asked), reason=error.detail)
            return
        gone = [each for each in asked if each[0].run_id not in ours]
        if gone:
            await asyncio.sleep(SETTLE_SECONDS)  # a write of our own that ended the run drops its lease as soon as it hears so
        for lease, on_lost in gone:
            if self._held.get(lease.run_id, (None,))[0] == lease:
                del self._held[lease.run_id]
                on_lost()
