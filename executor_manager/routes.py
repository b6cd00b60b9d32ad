"""The manager's routes: find the executor, pass the call on. No decisions here, and nothing is remembered."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from shared.contracts.events import MAX_TIMEOUT_MS, ExecutorEvent
from shared.contracts.interactions import RunReply
from shared.contracts.provider_runs import (
    ExecutorState,
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
    ProviderRunList,
    RenewLeash,
    ReplyTaken,
    StartProviderRun,
    StopTaken,
    UserMessage,
    WorkspaceFileList,
    WorkspaceForgotten,
)
from shared.contracts.providers import ProviderList, ProviderName, provider_named
from shared.contracts.runs import LogRange
from shared.errors import ErrorCode, RunyardError
from shared.web import Answer, Call, Handler, Operation, get, post

PREFIX = "/api"
RUNS = f"{PREFIX}/provider-runs"
RUN = f"{RUNS}/{{run_id}}"
FORGET = f"{PREFIX}/workspaces/{{key}}/forget"
# Less than a caller waits for us, so that it hears which of the two of us was silent.
CONTROL_SECONDS = 4.0
RENEW_SECONDS = 3.0
_UNREACHED = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.PROVIDER_UNAVAILABLE)
_FULL = (ErrorCode.QUEUE_FULL, ErrorCode.PROVIDER_UNAVAILABLE)
_PARAM = re.compile(r"\{(\w+)(:path)?\}")


class Named(BaseModel):
    """Of calls that are about no one run, or about one that nobody knows yet; what else stands in the query is the executor's
    to judge."""

    model_config = ConfigDict(extra="allow")

    executor: str = Field(max_length=128)

    def passed_on(self) -> dict[str, str | int | None]:
        return {name: str(value) for name, value in (self.model_extra or {}).items()}


class Addressed(BaseModel):
    """Of calls about a run."""

    model_config = ConfigDict(extra="allow")

    executor: str | None = Field(default=None, max_length=128, description="Default: whichever executor knows the run.")
    attempt: int | None = Field(default=None, ge=1, description="Default: the highest.")

    def passed_on(self) -> dict[str, str | int | None]:
        return {**{name: str(value) for name, value in (self.model_extra or {}).items()}, "attempt": self.attempt}


class TimeoutQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provider: ProviderName
    model: str | None = None
    app_ms: int | None = Field(default=None, alias="appMs", ge=1, le=MAX_TIMEOUT_MS, description="An app's `timeoutMs`.")


def executor_path(template: str, path: Mapping[str, str]) -> str:
    """The executor's path for one of ours: the same without the prefix. Raises ``not_found`` for what would climb out of it."""

    def value(match: re.Match[str]) -> str:
        given = path[match[1]]
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
        return await self.locate.run(call.path["run_id"], call.query.attempt) + path

    def control(self, method: str, template: str, seconds: float = CONTROL_SECONDS) -> Handler:
        async def handler(call: Call[bytes]) -> Response:
            url = await self.url(template, call)
            return await self.relay.pass_on(method, url, call.query.passed_on(), call.body, seconds)

        return handler

    def download(self, template: str) -> Handler:
        async def handler(call: Call[None]) -> Response:
            url = await self.url(template, call)
            return await self.relay.download(url, call.query.passed_on())

        return handler

    def follow(self, template: str) -> Handler:
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
        answer = await passage.relay.pass_on("POST", url, call.query.passed_on(), settled, CONTROL_SECONDS)
        passage.locate.fleet.start_answered(call.query.executor, call.body.workspace.key)
        return answer

    return (
        post(f"{RUNS}/propose", propose, body=Propose, returns=Proposal, errors=_FULL, access="service",
             summary="An executor for an attempt. Nothing is reserved."),
        post(f"{RUNS}/start", start, body=StartProviderRun, query=Named, returns=ProviderRunAccepted, status=201,
             also={200: "It was started before."},
             errors=(*_FULL, *_UNREACHED), access="service", summary="Start an attempt at the named executor."),
        *_control_routes(passage),
        *_reading_routes(passage),
    )  # fmt: skip


def _control_routes(passage: Passage) -> tuple[Operation, ...]:
    def control(method: str, path: str, summary: str, seconds: float = CONTROL_SECONDS, **more: Any) -> Operation:
        handler, query = passage.control(method, path, seconds), Addressed if path.startswith(RUN) else Named
        return Operation(
            method, path, handler, query=query, errors=_UNREACHED, access="service", raw=True, summary=summary, **more
        )

    return (
        control(
            "POST", f"{RUNS}/renew", "Renew the leash of many attempts.", RENEW_SECONDS, body=RenewLeash, returns=LeashRenewed
        ),
        control("POST", f"{RUN}/stop", "Ask an attempt to end.", returns=StopTaken),
        control("POST", f"{RUN}/human-loop/reply", "Answer a question.", body=RunReply, returns=ReplyTaken),
        control("POST", f"{RUN}/messages", "A further user message.", body=UserMessage, returns=MessageTaken),
        control("POST", f"{RUN}/park", "End an engine that waits for a person.", body=ParkRun, returns=ParkTaken),
        control("DELETE", RUN, "Release an ended run.", status=204),
        control("GET", RUN, "One attempt.", returns=ProviderRun),
        control("POST", FORGET, "Delete a workspace of the named executor.", body=ForgetWorkspace, returns=WorkspaceForgotten),
        control("GET", RUNS, "Every attempt the named executor knows.", returns=ProviderRunList),
    )


def _reading_routes(passage: Passage) -> tuple[Operation, ...]:
    def reading(path: str, handler: Handler, summary: str, **more: Any) -> Operation:
        return get(path, handler, query=Addressed, errors=_UNREACHED, access="service", summary=summary, **more)

    stream, logs, files, bundle = f"{RUN}/stream", f"{RUN}/logs/{{stream}}", f"{RUN}/files", f"{RUN}/bundle"
    file = f"{files}/{{path:path}}"
    return (
        reading(stream, passage.follow(stream), "Replay and follow the events of an attempt.", streams=ExecutorEvent),
        reading(logs, passage.download(logs), "Raw output.", returns=LogRange),
        reading(files, passage.download(files), "The files of an attempt.", returns=WorkspaceFileList),
        reading(file, passage.download(file), "One file."),
        reading(bundle, passage.download(bundle), "All files in one archive."),
    )


def fleet_routes(fleet: ExecutorFleet, passage: Passage, timeouts: TimeoutTable) -> tuple[Operation, ...]:
    def drain(method: str, summary: str) -> Operation:
        async def handler(call: Call[bytes]) -> Response:
            url = await passage.locate.executor(call.path["executor_id"])
            answer = await passage.relay.pass_on(method, f"{url}/executor/drain", {}, call.body, CONTROL_SECONDS)
            await fleet.refresh()  # the next proposal knows it
            return answer

        path = f"{PREFIX}/executors/{{executor_id}}/drain"
        return Operation(
            method, path, handler, returns=ExecutorState, errors=_UNREACHED, access="service", raw=True, summary=summary
        )

    async def executors(_call: Call[None]) -> Answer:
        return Answer(Fleet(items=fleet.members))

    async def providers(_call: Call[None]) -> Answer:
        return Answer(ProviderList(items=best_known(fleet.members)))

    async def timeout(call: Call[None]) -> Answer:
        query = call.query
        return Answer(timeouts.resolve(provider_named(query.provider, "query.provider"), query.model, {}, query.app_ms))

    return (
        get(f"{PREFIX}/executors", executors, returns=Fleet, access="service", summary="Who there is, how loaded, who drains."),
        drain("POST", "Propose it no more; what runs there goes on and stays reachable."),
        drain("DELETE", "Propose it again."),
        get(f"{PREFIX}/providers", providers, returns=ProviderList, access="service", summary="What can run, and if not, why."),
        get(f"{PREFIX}/timeouts", timeout, query=TimeoutQuery, returns=RunTimeout, errors=(ErrorCode.INVALID_REQUEST,),
            access="service", summary="Which timeout would apply, and which rule says so."),
    )  # fmt: skip


def document_routes(described: Mapping[str, Any]) -> tuple[Operation, ...]:
    async def show(_call: Call[None]) -> Answer:
        return Answer(described)

    return (get("/openapi.json", show, access="open", summary="This API as OpenAPI 3.1."),)
