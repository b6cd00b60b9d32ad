"""The wire side of an executor, for the manager's tests: real routes on a real server, and a record of what reached it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.contracts.provider_runs import ExecutorState
from shared.contracts.providers import Capabilities, Provider, ProviderReadiness, ReadinessCategory
from shared.errors import ErrorCode, RunyardError
from shared.sse import CutError, EventStream
from shared.web import EXCEPTION_HANDLERS


@dataclass
class Source:
    """Blocks a test feeds by hand: bytes, ``None`` for the clean end, ``CutError`` for a cut."""

    queue: asyncio.Queue[bytes | CutError | None] = field(default_factory=lambda: asyncio.Queue(100_000))
    taken: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, within: float) -> bytes | None:
        item = await self.queue.get()
        if isinstance(item, CutError):
            raise item
        self.taken += len(item or b"")
        return item

    async def close(self) -> None:
        self.closed.set()


@dataclass
class FakeExecutor:
    executor_id: str
    instance: str = "i1"
    live: int = 0
    slots: int = 4
    draining: bool = False
    workspaces: list[str] = field(default_factory=list)
    holds: dict[str, int] = field(default_factory=dict)
    broken: bool = False
    broken_status: int = 500
    answers_after: float = 0.0
    polls: int = 0
    calls: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    streams: int = 0
    opened: int = 0

    def state(self) -> ExecutorState:
        ready = ProviderReadiness(
            provider=Provider.SCRIPTED, installed=True, readiness_category=ReadinessCategory.READY, capabilities=Capabilities()
        )
        return ExecutorState(
            executor_id=self.executor_id, instance=f"{self.executor_id}-{self.instance}", clock_ms=1000 + self.polls,
            slots=self.slots, live=self.live, draining=self.draining, providers=[ready], workspaces=self.workspaces,
        )  # fmt: skip

    def app(self) -> Starlette:
        runs = "/provider-runs/{run_id}"
        return Starlette(
            routes=[
                Route("/executor", self._state),
                Route("/provider-runs/{verb}", self._start, methods=["POST"]),
                Route(runs, self._one),
                Route(runs, self._recorded, methods=["DELETE"]),
                Route(runs + "/stream", self._stream),
                Route(runs + "/files/{path:path}", self._file),
                Route(runs + "/{rest:path}", self._recorded, methods=["POST", "GET"]),
            ],
            exception_handlers=dict(EXCEPTION_HANDLERS),
        )

    async def _state(self, _request: Request) -> Response:
        self.polls += 1
        await asyncio.sleep(self.answers_after)  # an executor under load: its slowness is what is tested
        if self.broken:
            return Response("out of order", self.broken_status)
        return Response(self.state().wire_json(), media_type="application/json")

    async def _start(self, request: Request) -> Response:
        await self._note(request)
        if self.live >= self.slots:
            raise RunyardError(ErrorCode.QUEUE_FULL, "no slot", retry_after=4, extra={"mine": [1, "ü"]})
        return Response(b'{ "runId":"r" }', 201, media_type="application/json")

    async def _one(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        if self.broken:
            return Response("out of order", self.broken_status)
        if run_id not in self.holds:
            raise RunyardError(ErrorCode.NOT_FOUND, "not here")
        known = {
            "runId": run_id, "attempt": self.holds[run_id], "provider": "scripted", "status": "running",
            "executorId": self.executor_id, "instance": "i", "startedAt": "2026-01-01T00:00:00Z", "lastExecutorCursor": 0,
        }  # fmt: skip
        return JSONResponse(known)

    async def _recorded(self, request: Request) -> Response:
        await self._note(request)
        status = 200 if request.method == "GET" else 202
        return Response(b'{"ok" :  true}', status, {"x-own": "kept here"}, media_type="application/json")

    async def _stream(self, request: Request) -> Response:
        await self._note(request)
        source = self.sources.setdefault(request.path_params["run_id"], Source())
        self.opened += 1
        self.streams += 1
        return _Counted(self, source)

    async def _file(self, request: Request) -> Response:
        await self._note(request)
        try:
            content = self.files[request.path_params["path"]]
        except KeyError:
            raise RunyardError(ErrorCode.NOT_FOUND, "no such file") from None
        return Response(content, 200, {"etag": '"e1"', "x-secret": "no"}, media_type="application/octet-stream")

    async def _note(self, request: Request) -> None:
        query = dict(request.query_params)
        self.calls.append((request.method, request.url.path, query, await request.body()))
        self.headers.append(dict(request.headers))


class _Counted(EventStream):
    """An event stream that counts itself out when it is over, however it ended."""

    def __init__(self, owner: FakeExecutor, source: Source) -> None:
        super().__init__(source, heartbeat_seconds=60.0)
        self._owner = owner

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._owner.streams -= 1
