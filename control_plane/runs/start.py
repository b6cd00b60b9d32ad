"""Starting an attempt at its executor: until it runs there, or certainly does not and never will.

An unknown outcome is repeated at the same executor. Whoever may have been heard before believes no «never sent» of a repeat.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from control_plane.domain.bounds import Bounds
from control_plane.manager_client import ManagerClient, nobody_knows, not_here_not_now, was_not_sent
from control_plane.runs.leashes import Leashes
from shared.clock import Monotonic
from shared.contracts.provider_runs import LeashQuote, ProviderRunAccepted, StartProviderRun
from shared.errors import RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("start")

Refusal = RunyardError | NeverSentError


class StartRefused(Exception):
    """A definite no to an attempt nobody else has tried to start. ``elsewhere``: the same attempt may be placed again."""

    def __init__(self, error: Refusal) -> None:
        super().__init__(str(error))
        self.error = error
        self.elsewhere = not_here_not_now(error)


class NotStarted(Exception):
    """It does not run and never will, but its number may have been heard: the next try is another attempt.

    ``never_began``: its executor says itself that it never had it.
    """

    def __init__(self, reason: str, never_began: bool = False) -> None:
        super().__init__(reason)
        self.never_began = never_began


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """One use case: ``await start(executor_id, request, maybe_heard)``."""

    manager: ManagerClient
    leashes: Leashes
    bounds: Bounds
    monotonic: Monotonic

    async def __call__(self, executor_id: str, request: StartProviderRun, maybe_heard: bool) -> ProviderRunAccepted:
        """Raises ``StartRefused`` or ``NotStarted``. ``maybe_heard``: an earlier driver may have sent this start.

        All repeats quote one clock reading, so that after ``lost_after`` none of them can have begun a leash that still holds.
        """
        quote = await self._quote(executor_id, maybe_heard)
        request = request.model_copy(update={"leash": quote})
        began, doubt = self.monotonic(), maybe_heard
        while True:
            try:
                accepted = await self.manager.start(executor_id, request)
            except UnknownOutcomeError as error:
                reason, doubt = str(error), True
            except (RunyardError, NeverSentError) as error:
                doubt = doubt or nobody_knows(error)
                await self._judge(executor_id, request, error, doubt)
                reason = str(error)
            else:
                self.leashes.quoted(accepted.executor_id, accepted.instance, accepted.clock_ms)
                return accepted
            self._go_on(began, f"its start was never confirmed: {reason}")
            await asyncio.sleep(self.bounds.reconnect)

    async def _quote(self, executor_id: str, maybe_heard: bool) -> LeashQuote:
        """A reading that came with the proposal, or a new one: an old one would be refused. Raises ``NotStarted``."""
        began = self.monotonic()
        quote = None if maybe_heard else self.leashes.quote(executor_id)
        while quote is None and (quote := await self.leashes.reading(executor_id)) is None:
            self._go_on(began, "its executor was silent before it was known to have started")
            await asyncio.sleep(self.bounds.reconnect)
        return quote

    def _go_on(self, began: float, reason: str) -> None:
        if self.monotonic() - began > self.bounds.lost_after:
            raise NotStarted(reason)

    async def _judge(self, executor_id: str, request: StartProviderRun, error: Refusal, doubt: bool) -> None:
        """Returns where the start is to be repeated."""
        if nobody_knows(error) or (doubt and was_not_sent(error)):
            return
        if not (doubt and not_here_not_now(error)):
            raise StartRefused(error) from error
        if await self._forbidden(executor_id, request):
            raise NotStarted(f"its executor never began it: {error}", never_began=True) from error

    async def _forbidden(self, executor_id: str, request: StartProviderRun) -> bool:
        """Whether a repeat that is still on its way will be refused: a stop that comes first is remembered."""
        try:
            taken = await self.manager.stop(executor_id, request.run_id, request.attempt)
        except (RunyardError, NeverSentError, UnknownOutcomeError) as error:
            log.info("start.not_forbidden", run_id=request.run_id, attempt=request.attempt, reason=str(error))
            return False
        return taken.status == "remembered"
