"""Whether this replica can do its job, and the state of the whole chain behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control_plane.manager_client import ManagerClient
from control_plane.storage.runs import RunStore
from shared.contracts.providers import ReadinessCategory
from shared.errors import RunyardError
from shared.http import UnknownOutcomeError

_DATABASE_SECONDS = 2.0


@dataclass(slots=True)
class Readiness:
    """Quick, whatever the database does: a question it does not answer stays the only one."""

    runs: RunStore
    manager: ManagerClient
    draining: Callable[[], bool]
    _asking: asyncio.Task[bool] | None = None

    async def __call__(self) -> list[str]:
        """Reasons for not being ready. A missing executor is none: runs wait in the queue."""
        reasons = ["draining"] if self.draining() else []
        return reasons + ([] if await self._database() else ["the database does not answer"])

    async def chain(self) -> dict[str, Any]:
        """Database, manager, executors and providers, each with ``ready`` and why not."""
        database = await self._database()
        try:
            fleet = await self.manager.executors()
            providers = await self.manager.providers()
        except (RunyardError, UnknownOutcomeError) as error:
            return {
                "ready": False, "database": {"ready": database}, "manager": {"ready": False, "reason": str(error)},
                "executors": [], "providers": [],
            }  # fmt: skip
        executors = [
            {
                "executorId": each.state.executor_id if each.state else None, "ready": each.reachable,
                "draining": each.state.draining if each.state else None, "reason": each.reason,
            }
            for each in fleet.items
        ]  # fmt: skip
        some_ready = any(each.readiness_category is ReadinessCategory.READY for each in providers.items)
        return {
            "ready": database and some_ready, "database": {"ready": database}, "manager": {"ready": True},
            "executors": executors, "providers": [each.model_dump(mode="json", by_alias=True) for each in providers.items],
        }  # fmt: skip

    async def _database(self) -> bool:
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._answers())
        await asyncio.wait((asking,), timeout=_DATABASE_SECONDS)
        return asking.done() and asking.result()

    async def _answers(self) -> bool:
        try:
            await self.runs.queued(1)
        except RunyardError:
            return False
        return True
