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
    """``answer_seconds``: how long a driver waits until its attempt is renewed, and a renewal for the one before it.
    ``renewal_seconds``: how long one call may take; an executor with much to do is slow, and not gone.
    """

    def __init__(self, manager: ManagerClient, renew_every: float, answer_seconds: float, renewal_seconds: float) -> None:
        self._manager = manager
        self._renew_every = renew_every
        self._old_ms = 2 * renew_every * 1000
        self._answer_seconds = answer_seconds
        self._renewal_seconds = renewal_seconds
        self._attempts: dict[str, set[tuple[str, int]]] = {}
        self._quotes: dict[str, LeashQuote] = {}
        self._begun: dict[str, asyncio.Task[LeashQuote | None]] = {}  # of each executor its last renewal
        self._waiting: dict[str, asyncio.Task[LeashQuote | None]] = {}  # and the next, which comes when that is over, or hangs
        self._renewals: set[asyncio.Task[LeashQuote | None]] = set()
        self._broken: BaseException | None = None

    def quoted(self, executor_id: str, instance: str, clock_ms: int) -> LeashQuote:
        """Remember an executor's clock reading."""
        quote = self._quotes[executor_id] = LeashQuote(instance=instance, clock_ms=clock_ms)
        return quote

    def quote(self, executor_id: str) -> LeashQuote | None:
        return self._quotes.get(executor_id)

    async def reading(self, executor_id: str) -> LeashQuote | None:
        """A clock reading from after this call; None when the executor gave none."""
        return await asyncio.shield(self._renewal(executor_id))

    async def keep(self, executor_id: str, run_id: str, attempt: int, renew_now: bool) -> None:
        """Renew this attempt's leash from now on; at once, where it is re-attached and may have little left."""
        self._attempts.setdefault(executor_id, set()).add((run_id, attempt))
        if renew_now:
            await asyncio.wait((self._renewal(executor_id),), timeout=self._answer_seconds)

    def drop(self, executor_id: str, run_id: str, attempt: int) -> None:
        attempts = self._attempts.get(executor_id, set())
        attempts.discard((run_id, attempt))
        if not attempts:
            self._attempts.pop(executor_id, None)

    async def run(self) -> None:
        """Until cancelled: every executor by itself, so that a silent one delays no other. Raises what a renewal must not."""
        try:
            while self._broken is None:
                await asyncio.sleep(self._renew_every)
                for executor_id in self._attempts:
                    self._renewal(executor_id)
            raise self._broken
        finally:
            for renewal in self._renewals:
                renewal.cancel()
            await asyncio.gather(*self._renewals, return_exceptions=True)

    def _renewal(self, executor_id: str) -> asyncio.Task[LeashQuote | None]:
        """One that is still to begin, and renews all that is kept by then: whoever comes until it does shares it."""
        if executor_id not in self._waiting:
            renewal = asyncio.create_task(self._after(self._begun.get(executor_id), executor_id))
            renewal.add_done_callback(self._ended)
            self._renewals.add(renewal)
            self._waiting[executor_id] = renewal
        return self._waiting[executor_id]

    def _ended(self, renewal: asyncio.Task[LeashQuote | None]) -> None:
        self._renewals.discard(renewal)
        if not renewal.cancelled():
            self._broken = self._broken or renewal.exception()

    async def _after(self, last: asyncio.Task[LeashQuote | None] | None, executor_id: str) -> LeashQuote | None:
        if last is not None:
            await asyncio.wait((last,), timeout=self._answer_seconds)
        self._begun[executor_id] = self._waiting.pop(executor_id)
        return await self._renew(executor_id)

    async def _renew(self, executor_id: str) -> LeashQuote | None:
        """A reading we do not have yet, one of an earlier instance or an old one renews little: it costs a second call."""
        attempts = [AttemptRef(run_id=run_id, attempt=attempt) for run_id, attempt in self._attempts.get(executor_id, ())]
        quote = self._quotes.get(executor_id, _NO_QUOTE)
        answer = await self._ask(executor_id, quote, attempts)
        if answer is None:
            return None
        if attempts and (answer.instance != quote.instance or answer.clock_ms - quote.clock_ms > self._old_ms):
            answer = await self._ask(executor_id, self._quotes[executor_id], attempts) or answer
        return LeashQuote(instance=answer.instance, clock_ms=answer.clock_ms)

    async def _ask(self, executor_id: str, quote: LeashQuote, attempts: list[AttemptRef]) -> LeashRenewed | None:
        try:
            answer = await self._manager.renew(executor_id, RenewLeash(quote=quote, attempts=attempts), self._renewal_seconds)
        except (RunyardError, NeverSentError, UnknownOutcomeError) as error:
            log.warning("leashes.not_renewed", executor_id=executor_id, attempts=len(attempts), reason=str(error))
            return None
        self.quoted(executor_id, answer.instance, answer.clock_ms)
        return answer
