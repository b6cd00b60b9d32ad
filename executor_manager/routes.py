"""The manager's routes: find the executor, pass the call on. No decisions here, and nothing is remembered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from executor_manager.fleet import ExecutorFleet
from executor_manager.locate import Locate, ProposeExecutor
from executor_manager.placement import best_known
from executor_manager.relay import Relay
from executor_manager.timeouts import RunTimeout, TimeoutTable
from shared.contracts.events import RunEvent
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import (
    Fleet,
    LeashRenewed,
    Proposal,
    Propose,
    ProviderRun,
    ProviderRunAccepted,
    RenewLeash,
    ReplyTaken,
    StartProviderRun,
    StopTaken,
    UserMessage,
)
from shared.contracts.providers import ProviderList, provider_named
from shared.errors import ErrorCode, RunyardError, invalid
from shared.web import Answer, Call, Operation, get, post

PREFIX = "/api"
RUNS = f"{PREFIX}/provider-runs"
# A start may first have to end the attempt before it; everything else is answered from the executor's memory.
START_SECONDS = 15.0
CONTROL_SECONDS = 6.0
_UNREACHED = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.PROVIDER_UNAVAILABLE)
_PARAM = re.compile(r"\{(\w+)(:path)?\}")


class Addressed(BaseModel):
    """What every provider-run route takes; what else stands in the query is the executor's to judge."""

    model_config = ConfigDict(extra="allow")

    executor: str | None = Field(default=None, max_length=128, description="Default: whichever executor knows the run.")
    attempt: int | None = Field(default=None, ge=1, description="Default: the highest.")

    def passed_on(self) -> dict[str, str | int | None]:
        return {**{name: str(value) for name, value in (self.model_extra or {}).items()}, "attempt": self.attempt}


class TimeoutQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provider: str
    model: str | None = None


def executor_path(template: str, path: Any) -> str:
    """The executor's path for one of ours: the same without the prefix. Raises ``not_found`` for what would climb out of it."""

    def value(match: re.Match[str]) -> str:
        given = str(path[match[1]])
        if not match[2] and given in (".", ".."):
            raise RunyardError(ErrorCode.NOT_FOUND, "there is no such provider run")
        return quote(given, safe="/" if match[2] else "")

    return _PARAM.sub(value, template.removeprefix(PREFIX))


@dataclass(frozen=True, slots=True)
class Passage:
    """The ways through the manager to one executor."""

    locate: Locate
    relay: Relay

    async def url(self, template: str, call: Call[Any]) -> str:
        """Where this call goes, whole."""
        path = executor_path(template, call.path)
        if call.query.executor is not None:
            return await self.locate.executor(call.query.executor) + path
        if "run_id" not in call.path:
            raise invalid("query.executor", "is required here")
        return await self.locate.run(call.path["run_id"], call.query.attempt) + path

    def control(self, method: str, template: str) -> Callable[[Call[Any]], Awaitable[Response]]:
        async def handler(call: Call[bytes]) -> Response:
            url = await self.url(template, call)
            return await self.relay.pass_on(method, url, call.query.passed_on(), call.body, CONTROL_SECONDS)

        return handler

    def download(self, template: str) -> Callable[[Call[Any]], Awaitable[Response]]:
        async def handler(call: Call[None]) -> Response:
            url = await self.url(template, call)
            return await self.relay.download(url, call.query.passed_on(), call.headers.get("range"))

        return handler

    def follow(self, template: str) -> Callable[[Call[Any]], Awaitable[Response]]:
        async def handler(call: Call[None]) -> Response:
            url = await self.url(template, call)
            return await self.relay.follow(url, call.query.passed_on(), call.headers.get("last-event-id"))

        return handler


def provider_run_routes(proposal: ProposeExecutor, passage: Passage, timeouts: TimeoutTable) -> tuple[Operation, ...]:
    async def propose(call: Call[Propose]) -> Answer:
        return Answer(await proposal(call.body))

    async def start(call: Call[StartProviderRun]) -> Response:
        settled = timeouts.settle(call.body).model_dump_json(by_alias=True, exclude_none=True).encode()
        url = await passage.url(f"{RUNS}/start", call)
        return await passage.relay.pass_on("POST", url, call.query.passed_on(), settled, START_SECONDS)

    full = (ErrorCode.QUEUE_FULL, ErrorCode.PROVIDER_UNAVAILABLE)
    return (
        post(f"{RUNS}/propose", propose, body=Propose, returns=Proposal, errors=full, access="service"),
        post(
            f"{RUNS}/start",
            start,
            body=StartProviderRun,
            query=Addressed,
            returns=ProviderRunAccepted,
            status=201,
            errors=(*full, *_UNREACHED),
            access="service",
        ),
        *_control_routes(passage),
        *_reading_routes(passage),
    )


def _control_routes(passage: Passage) -> tuple[Operation, ...]:
    def control(method: str, path: str, body: type[BaseModel] | None, returns: type[BaseModel] | None) -> Operation:
        handler = passage.control(method, path)
        return Operation(
            method, path, handler, body=body, query=Addressed, returns=returns, errors=_UNREACHED, access="service", raw=True
        )

    run = f"{RUNS}/{{run_id}}"
    return (
        control("POST", f"{RUNS}/renew", RenewLeash, LeashRenewed),
        control("POST", f"{run}/stop", None, StopTaken),
        control("POST", f"{run}/human-loop/reply", Reply, ReplyTaken),
        control("POST", f"{run}/messages", UserMessage, None),
        control("GET", run, None, ProviderRun),
        control("DELETE", run, None, None),
        control("GET", f"{run}/files", None, None),
        control("GET", RUNS, None, None),
    )


def _reading_routes(passage: Passage) -> tuple[Operation, ...]:
    def download(path: str) -> Operation:
        return get(path, passage.download(path), query=Addressed, errors=_UNREACHED, access="service")

    run = f"{RUNS}/{{run_id}}"
    stream = f"{run}/stream"
    return (
        get(stream, passage.follow(stream), query=Addressed, streams=RunEvent, errors=_UNREACHED, access="service"),
        download(f"{run}/logs/{{stream}}"),
        download(f"{run}/files/{{path:path}}"),
        download(f"{run}/bundle"),
    )


def fleet_routes(fleet: ExecutorFleet, timeouts: TimeoutTable) -> tuple[Operation, ...]:
    async def executors(_call: Call[None]) -> Answer:
        return Answer(Fleet(items=fleet.members))

    async def providers(_call: Call[None]) -> Answer:
        return Answer(ProviderList(items=best_known(fleet.members)))

    async def timeout(call: Call[None]) -> Answer:
        return Answer(timeouts.resolve(provider_named(call.query.provider, "query.provider"), call.query.model, {}))

    return (
        get(f"{PREFIX}/executors", executors, returns=Fleet, access="service"),
        get(f"{PREFIX}/providers", providers, returns=ProviderList, access="service"),
        get(f"{PREFIX}/timeouts", timeout, query=TimeoutQuery, returns=RunTimeout, access="service"),
    )
