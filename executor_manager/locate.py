"""Which executor an attempt or a call is for: a free one, the one it names, the one that knows the run.

Says «there is none» only when every executor answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import ValidationError

from executor_manager.fleet import ExecutorFleet
from executor_manager.placement import propose, refusal
from shared.contracts.provider_runs import Proposal, Propose, ProviderRun
from shared.errors import ErrorCode, RunyardError
from shared.http import NoAnswerError, RawAnswer, ServiceClient

ASK_SECONDS = 3.0
_UNAVAILABLE = ErrorCode.PROVIDER_UNAVAILABLE
# It is here, it is not, it is here but that attempt is an older one. Anything else says nothing about the run.
_TELLING = frozenset({200, 404, 409})


@dataclass(frozen=True, slots=True)
class ProposeExecutor:
    """Where an attempt may run. Nothing is reserved: the executor itself says yes or no at the start."""

    fleet: ExecutorFleet

    async def __call__(self, request: Propose) -> Proposal:
        """Raises ``queue_full`` when all who could are full, ``provider_unavailable`` when nobody can."""
        await self.fleet.freshen()
        state = propose(self.fleet.members, request)
        if state is None and (self.fleet.has_guesses or refusal(self.fleet.members, request).code is _UNAVAILABLE):
            await self.fleet.refresh()
            # what is only expected decides who is asked first, never that nobody is: the executor says yes or no itself
            state = propose(self.fleet.members, request) or propose(self.fleet.seen, request)
        url = self.fleet.url_of(state.executor_id) if state is not None else None
        if state is None or url is None:
            raise refusal(self.fleet.members, request)
        self.fleet.expect_start(state.executor_id, request.workspace.key)
        return Proposal(executor_id=state.executor_id, instance=state.instance, url=url, clock_ms=state.clock_ms)


@dataclass(frozen=True, slots=True)
class Locate:
    """Raises ``not_found`` when every executor answered, else ``provider_unavailable``; both with ``"sent": false``."""

    fleet: ExecutorFleet
    client: ServiceClient

    async def executor(self, executor_id: str) -> str:
        """The URL of a named executor; one it does not know makes the manager look around once."""
        url = self.fleet.url_of(executor_id)
        if url is None:
            await self.fleet.refresh()
            url = self.fleet.url_of(executor_id)
        if url is None:
            raise self._nowhere(f"executor {executor_id[:128]}", self.fleet.everyone_answers())
        return url

    async def run(self, run_id: str, attempt: int | None) -> str:
        """The URL of the executor that holds the run's highest attempt."""
        if not self.fleet.members:
            await self.fleet.refresh()
        urls = [member.url for member in self.fleet.members]
        answers = await asyncio.gather(*(self._ask(url, run_id, attempt) for url in urls))
        held = {url: _attempt(answer) for url, answer in zip(urls, answers, strict=True) if answer and answer.status != 404}
        if not held:
            everyone = bool(answers) and all(answer is not None for answer in answers)
            raise self._nowhere(f"provider run {run_id}", everyone)
        return max(held, key=lambda url: held[url])

    async def _ask(self, url: str, run_id: str, attempt: int | None) -> RawAnswer | None:
        """None: no answer, or one that says nothing about the run."""
        try:
            answer = await self.client.forward(
                "GET", f"{url}/provider-runs/{quote(run_id, safe='')}", timeout=ASK_SECONDS, params={"attempt": attempt}
            )
        except NoAnswerError:
            return None
        return answer if answer.status in _TELLING else None

    def _nowhere(self, what: str, everyone: bool) -> RunyardError:
        if everyone:
            return RunyardError(ErrorCode.NOT_FOUND, f"no executor knows {what}", extra={"sent": False})
        silent = [f"{each.url}: {each.reason}" for each in self.fleet.members if not each.reachable]
        detail = f"{what} was not found, and not every executor answered ({'; '.join(silent) or 'no answer'})"
        return RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, detail, retry_after=1, extra={"sent": False})


def _attempt(answer: RawAnswer) -> int:
    """0 for a holder that refuses to say (an older attempt was asked for): the call itself will hear why."""
    try:
        return ProviderRun.model_validate_json(answer.content).attempt if answer.status == 200 else 0
    except ValidationError:
        return 0
