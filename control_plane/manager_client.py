"""How an attempt reaches an engine: the executor managers over HTTP and SSE. Knows no run and decides nothing.

Any manager will do, and each gets its share of the calls: one that certainly was not sent goes to the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import structlog
from pydantic import BaseModel

from control_plane.manager_turns import ManagerTurns
from shared.clock import monotonic
from shared.contracts.interactions import RunReply
from shared.contracts.provider_runs import (
    Fleet,
    ForgetWorkspace,
    LeashRenewed,
    MessageTaken,
    ParkRun,
    ParkTaken,
    Proposal,
    Propose,
    ProviderRun,
    ProviderRunAccepted,
    RenewLeash,
    ReplyTaken,
    StartProviderRun,
    StopTaken,
    UserMessage,
    WorkspaceForgotten,
)
from shared.contracts.providers import ProviderList
from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, ServiceClient, UnknownOutcomeError
from shared.upstream import Upstream, open_stream

log = structlog.get_logger("manager_client")

_RUNS = "/api/provider-runs"
_CONNECT_SECONDS = 2.0
T = TypeVar("T")
Taken = TypeVar("Taken", bound=BaseModel)


class ManagerClient:
    """Owns one connection pool per manager; ``close`` it. Timeouts are seconds for a whole call at one manager."""

    def __init__(self, urls: Sequence[str], token: str | None, call_seconds: float) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._clients = [ServiceClient(url, token) for url in self._urls]
        self._headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        self._call_seconds = call_seconds
        self._turns = ManagerTurns(len(self._urls), monotonic)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def propose(self, request: Propose) -> Proposal:
        """An executor for an attempt. Raises ``provider_unavailable`` or ``queue_full`` when there is none."""
        return await self._any(
            lambda client, _: client.call("POST", f"{_RUNS}/propose", body=request, answer=Proposal, timeout=self._call_seconds)
        )

    async def start(self, executor_id: str, request: StartProviderRun) -> ProviderRunAccepted:
        """Start, or learn that it was started. Repeating is safe. Raises the refusal, or ``UnknownOutcomeError``."""
        return await self._any(
            lambda client, _: client.call(
                "POST", f"{_RUNS}/start", params={"executor": executor_id}, body=request, answer=ProviderRunAccepted,
                timeout=self._call_seconds,
            )
        )  # fmt: skip

    async def stream(self, executor_id: str, run_id: str, attempt: int, cursor: int) -> Upstream:
        """The attempt's frames after ``cursor``. Raises ``not_found`` or ``conflict`` as the executor says, else as ``start``."""
        query = urlencode({"executor": executor_id, "attempt": attempt, "cursor": cursor})
        return await self._any(
            lambda _, url: open_stream(
                f"{url}{_RUNS}/{run_id}/stream?{query}", self._headers, _CONNECT_SECONDS, self._call_seconds
            )
        )

    async def stop(self, executor_id: str, run_id: str, attempt: int) -> StopTaken:
        return await self._tell("stop", executor_id, run_id, attempt, None, StopTaken)

    async def reply(self, executor_id: str, run_id: str, attempt: int, reply: RunReply) -> ReplyTaken:
        return await self._tell("human-loop/reply", executor_id, run_id, attempt, reply, ReplyTaken)

    async def message(self, executor_id: str, run_id: str, attempt: int, message: UserMessage) -> MessageTaken:
        return await self._tell("messages", executor_id, run_id, attempt, message, MessageTaken)

    async def park(self, executor_id: str, run_id: str, attempt: int, park: ParkRun) -> ParkTaken:
        """Repeating is safe. Raises ``conflict`` where its engine waits for anything else, or for nothing any more."""
        return await self._tell("park", executor_id, run_id, attempt, park, ParkTaken)

    async def download(self, executor_id: str, run_id: str, path: str, params: Mapping[str, str]) -> Upstream:
        """What a run left, as bytes: ``path`` below its provider run, quoted. Raises as the executor says, else as ``start``."""
        query = urlencode({"executor": executor_id, **params})
        url = f"{_RUNS}/{run_id}/{path}?{query}"
        return await self._any(lambda _, base: open_stream(f"{base}{url}", self._headers, _CONNECT_SECONDS, self._call_seconds))

    async def renew(self, executor_id: str, request: RenewLeash, timeout: float) -> LeashRenewed:
        return await self._any(
            lambda client, _: client.call(
                "POST", f"{_RUNS}/renew", params={"executor": executor_id}, body=request, answer=LeashRenewed, timeout=timeout
            )
        )

    async def show(self, executor_id: str, run_id: str, attempt: int, timeout: float) -> ProviderRun:
        """What the executor knows of an attempt. Who gives up before a manager does cannot tell which of the two was silent."""
        return await self._any(
            lambda client, _: client.call(
                "GET", f"{_RUNS}/{run_id}", params=_named(executor_id, attempt), answer=ProviderRun, timeout=timeout
            ),
            blames=False,
        )

    async def release(self, executor_id: str, run_id: str, attempt: int) -> None:
        """The executor may forget the attempt."""
        await self._any(
            lambda client, _: client.tell(
                "DELETE", f"{_RUNS}/{run_id}", params=_named(executor_id, attempt), timeout=self._call_seconds
            )
        )

    async def forget(self, executor_id: str, workspace_key: str, request: ForgetWorkspace) -> WorkspaceForgotten:
        """Let an executor delete a workspace. Repeating is safe. Raises its refusal, or ``UnknownOutcomeError``."""
        return await self._any(
            lambda client, _: client.call(
                "POST", f"/api/workspaces/{workspace_key}/forget", params={"executor": executor_id}, body=request,
                answer=WorkspaceForgotten, timeout=self._call_seconds,
            )
        )  # fmt: skip

    async def executors(self) -> Fleet:
        return await self._any(lambda client, _: client.call("GET", "/api/executors", answer=Fleet, timeout=self._call_seconds))

    async def providers(self) -> ProviderList:
        return await self._any(
            lambda client, _: client.call("GET", "/api/providers", answer=ProviderList, timeout=self._call_seconds)
        )

    async def _tell(
        self, what: str, executor_id: str, run_id: str, attempt: int, body: BaseModel | None, answer: type[Taken]
    ) -> Taken:
        return await self._any(
            lambda client, _: client.call(
                "POST", f"{_RUNS}/{run_id}/{what}", params=_named(executor_id, attempt), body=body, answer=answer,
                timeout=self._call_seconds,
            )
        )  # fmt: skip

    async def _any(self, ask: Callable[[ServiceClient, str], Awaitable[T]], blames: bool = True) -> T:
        """Ask the manager whose turn it is; the next one where the executor certainly did not hear us.

        ``blames``: a manager that gave no answer is left out for a while.
        """
        unheard: list[NeverSentError] = []
        unreached: RunyardError | None = None
        for index in self._turns:
            try:
                answer = await ask(self._clients[index], self._urls[index])
            except NeverSentError as error:
                self._turns.failed(index)
                unheard.append(error)
                continue
            except UnknownOutcomeError:
                if blames:
                    self._turns.failed(index)
                raise
            except RunyardError as error:
                self._turns.answered(index)
                if not was_not_sent(error):
                    raise
                unreached = error  # from there; another manager may have a way
                continue
            self._turns.answered(index)
            return answer
        if unreached is not None:
            raise unreached
        reason = "; ".join(str(error) for error in unheard)
        raise RunyardError(ErrorCode.MANAGER_UNAVAILABLE, reason[:500], extra={"sent": False})


def _named(executor_id: str, attempt: int) -> dict[str, str | int | None]:
    return {"executor": executor_id, "attempt": attempt}


def was_not_sent(error: RunyardError | NeverSentError) -> bool:
    """Whether this call never reached the executor. It says nothing about an earlier one."""
    return isinstance(error, NeverSentError) or error.extra.get("sent") is False


def not_here_not_now(error: RunyardError | NeverSentError) -> bool:
    """Whether a refused start may be placed elsewhere: it was not sent, there is no room, or it met another life or a stop."""
    elsewhere = (ErrorCode.QUEUE_FULL, ErrorCode.RATE_LIMITED, ErrorCode.CONFLICT)
    return was_not_sent(error) or (isinstance(error, RunyardError) and error.code in elsewhere)


def nobody_knows(error: RunyardError | NeverSentError) -> bool:
    """Whether the answer came from somewhere between us and the executor, so that the start may have happened."""
    between = (ErrorCode.MANAGER_UNAVAILABLE, ErrorCode.PROVIDER_UNAVAILABLE, ErrorCode.INTERNAL)
    return not was_not_sent(error) and isinstance(error, RunyardError) and error.code in between
