"""The leashes of the attempts we drive: renewed in one call per executor, quoting that executor's last clock reading.

Only a driver that holds its lease (or cannot reach Postgres) keeps an attempt here; who is gone renews nothing, and the
executor ends what nobody renews.
"""

from __future__ import annotations

import asyncio

import structlog

from control_plane.manager_client import ManagerClient
from shared.contracts.provider_runs import AttemptRef, LeashQuote, LeashRenewed, RenewLeash
from shared.errors import RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("leashes")

_NO_QUOTE = LeashQuote(instance="", clock_ms=0)


class Leashes:
    def __init__(self, manager: ManagerClient, renew_every: float, call_seconds: float) -> None:
        self._manager = manager
        self._renew_every = renew_every
        self._old_ms = 2 * renew_every * 1000
        self._call_seconds = call_seconds
        self._attempts: dict[str, set[tuple[str, int]]] = {}
        self._quotes: dict[str, LeashQuote] = {}
        self._asking: set[str] = set()

    def quoted(self, executor_id: str, instance: str, clock_ms: int) -> LeashQuote:
        """Remember an executor's clock reading."""
        quote = self._quotes[executor_id] = LeashQuote(instance=instance, clock_ms=clock_ms)
        return quote

    def quote(self, executor_id: str) -> LeashQuote | None:
        return self._quotes.get(executor_id)

    async def reading(self, executor_id: str) -> LeashQuote | None:
        """A clock reading of now; None when the executor gave none."""
        answer = await self._ask(executor_id, _NO_QUOTE, [])
        return LeashQuote(instance=answer.instance, clock_ms=answer.clock_ms) if answer is not None else None

    async def keep(self, executor_id: str, run_id: str, attempt: int, renew_now: bool) -> None:
        """Renew this attempt's leash from now on; at once, where it is re-attached and may have little left."""
        self._attempts.setdefault(executor_id, set()).add((run_id, attempt))
        if renew_now:
            await self._renew(executor_id)

    def drop(self, executor_id: str, run_id: str, attempt: int) -> None:
        attempts = self._attempts.get(executor_id, set())
        attempts.discard((run_id, attempt))
        if not attempts:
            self._attempts.pop(executor_id, None)

    async def run(self) -> None:
        """Until cancelled: every executor by itself, so that a silent one delays no other."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._renew_every)
                for executor_id in self._attempts.keys() - self._asking:
                    self._asking.add(executor_id)
                    tasks.create_task(self._renew_apart(executor_id))

    async def _renew_apart(self, executor_id: str) -> None:
        try:
            await self._renew(executor_id)
        finally:
            self._asking.discard(executor_id)

    async def _renew(self, executor_id: str) -> None:
        """A reading we do not have yet, one of an earlier instance or an old one renews little: it costs a second call."""
        attempts = [AttemptRef(run_id=run_id, attempt=attempt) for run_id, attempt in self._attempts.get(executor_id, ())]
        if not attempts:
            return
        quote = self._quotes.get(executor_id, _NO_QUOTE)
        answer = await self._ask(executor_id, quote, attempts)
        if answer is not None and (answer.instance != quote.instance or answer.clock_ms - quote.clock_ms > self._old_ms):
            await self._ask(executor_id, self._quotes[executor_id], attempts)

    async def _ask(self, executor_id: str, quote: LeashQuote, attempts: list[AttemptRef]) -> LeashRenewed | None:
        try:
            answer = await self._manager.renew(executor_id, RenewLeash(quote=quote, attempts=attempts), self._call_seconds)
        except (RunyardError, NeverSentError, UnknownOutcomeError) as error:
            log.warning("leashes.not_renewed", executor_id=executor_id, attempts=len(attempts), reason=str(error))
            return None
        self.quoted(executor_id, answer.instance, answer.clock_ms)
        return answer
