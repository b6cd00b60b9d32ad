"""Providers as a caller sees them: what executors can run, and for whom the model refuses."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.domain.breaker import Breaker
from control_plane.manager_client import ManagerClient
from control_plane.storage.breakers import BreakerStore
from shared.contracts.providers import PausedProvider, Provider, ProvidersShown
from shared.errors import ErrorCode, RunyardError
from shared.http import NoAnswerError
from shared.web import Caller


@dataclass(frozen=True, slots=True)
class ReadProviders:
    manager: ManagerClient
    breakers: BreakerStore

    async def __call__(self, caller: Caller) -> ProvidersShown:
        """Raises ``manager_unavailable``."""
        try:
            known = await self.manager.providers()
        except NoAnswerError as error:
            raise RunyardError(ErrorCode.MANAGER_UNAVAILABLE, f"no answer: {error}", retry_after=1) from error
        found = await self.breakers.opened(None if caller.admin else caller.app_id or "")
        return ProvidersShown(items=known.items, paused=[_paused(*each) for each in found])


def _paused(lender: str, provider: str, breaker: Breaker) -> PausedProvider:
    assert breaker.opened_at is not None
    assert breaker.try_at is not None
    return PausedProvider(
        provider=Provider(provider),
        app_id=lender or None,
        error_code=breaker.code,
        failures=breaker.failures,
        since=breaker.opened_at,
        next_try_at=breaker.try_at,
        trying=breaker.trying,
        runs=breaker.meeting.value,
    )
