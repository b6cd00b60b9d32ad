"""The wire side of an executor manager with executors behind it, as a control plane sees them: real routes, scripted moods.

Its executors keep the rules of theirs: a start is idempotent, a stop that comes first is remembered, a stale quote is refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.errors import ErrorCode, RunyardError
from shared.sse import HEARTBEAT, CutError, EventStream, encode
from shared.web import EXCEPTION_HANDLERS

AT = "2026-01-01T00:00:00Z"
STARTED = {"executorId": "one", "instance": "i", "provider": "scripted", "sandbox": "s", "timeouts": {"runMs": 60_000}}
ENDED = {"outcome": "success", "activeMs": 1, "result": "done"}
HEARTBEAT_SECONDS = 0.1


@dataclass
class FakeAttempt:
    """One attempt's journal at an executor.

    ``silent``: its streams send nothing, not even a heartbeat. ``stays``: no stop ends it.
    """

    run_id: str
    number: int
    request: dict[str, Any]
    frames: list[bytes] = field(default_factory=list)
    over: bool = False
    silent: bool = False
    stays: bool = False
    cuts: int = 0
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    stops: int = 0
    asked: list[str] = field(default_factory=list)  # what its engine waits for
    released: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, kind: str, data: dict[str, Any]) -> None:
        cursor = len(self.frames) + 1
        event = {"executorCursor": cursor, "runId": self.run_id, "attempt": self.number, "at": AT, "kind": kind, "data": data}
        self.frames.append(encode(cursor, kind, json.dumps(event).encode()))
        self.over = self.over or kind == "attempt.ended"
        if kind == "interaction.requested":
            self.asked.append(data.get("questionId", "none"))  # one that talks nonsense gives none
        elif kind == "interaction.resolved" and data.get("questionId") in self.asked:
            self.asked.remove(data["questionId"])
        self.arrived.set()

    def ask(self, question: str = "q1", type: str = "question") -> None:
        self.say("interaction.requested", {"questionId": question, "type": type, "prompt": "which?"})

    def end(self, **changes: Any) -> None:
        self.say("attempt.ended", {**ENDED, **changes})

    def wait(self, question: str = "q1") -> None:
        """It has a session, and asks."""
        self.say("session.started", {"engineSession": f"s-{self.number}"})
        self.ask(question)

    def cut(self) -> None:
        """Break off whoever reads it now."""
        self.cuts += 1
        self.arrived.set()


@dataclass
class FakeExecutor:
    executor_id: str
    instance: str = "i1"
    clock_started: float = field(default_factory=time.monotonic)
    attempts: dict[tuple[str, int], FakeAttempt] = field(default_factory=dict)
    forbidden: set[tuple[str, int]] = field(default_factory=set)
    renewals: list[dict[str, Any]] = field(default_factory=list)
    forgotten: list[dict[str, Any]] = field(default_factory=list)
    forgets: str = "gone"
    slots: int = 1000
    gone: bool = False
    deaf_to_renewals: bool = False
    hears_again: asyncio.Event = field(default_factory=asyncio.Event)

    def clock_ms(self) -> int:
        return int((time.monotonic() - self.clock_started) * 1000) + 100_000

    @property
    def live(self) -> int:
        return sum(not attempt.over for attempt in self.attempts.values())

    def find(self, run_id: str, number: int) -> FakeAttempt:
        if (run_id, number) not in self.attempts:
            raise RunyardError(ErrorCode.NOT_FOUND, "no such attempt")
        return self.attempts[run_id, number]


Mood = Callable[["FakeManager", FakeExecutor, dict[str, Any]], Any]


@dataclass
class FakeManager:
    """``moods``: what happens to the next calls of a verb (start, stop, reply, …) before, or instead of, the usual."""

    executors: dict[str, FakeExecutor] = field(default_factory=lambda: {"one": FakeExecutor("one"), "two": FakeExecutor("two")})
    moods: dict[str, deque[Mood]] = field(default_factory=lambda: defaultdict(deque))
    calls: Counter[str] = field(default_factory=Counter)
    proposals: list[dict[str, Any]] = field(default_factory=list)
    leash_ms: int = 2200
    takes_messages: bool = True

    def attempts(self, run_id: str) -> list[FakeAttempt]:
        """Every attempt any executor has begun, in the order of their numbers."""
        begun = [attempt for each in self.executors.values() for (run, _), attempt in each.attempts.items() if run == run_id]
        return sorted(begun, key=lambda attempt: attempt.number)

    async def begun(self, run_id: str, count: int = 1) -> FakeAttempt:
        """The newest attempt once there are so many."""
        async with asyncio.timeout(20):
            while len(self.attempts(run_id)) < count:
                await asyncio.sleep(0.01)  # polling a condition with a bound
        return self.attempts(run_id)[-1]

    def app(self) -> Starlette:
        run = "/api/provider-runs/{run_id}"
        return Starlette(
            routes=[
                Route("/api/provider-runs/propose", self._propose, methods=["POST"]),
                Route("/api/provider-runs/start", self._start, methods=["POST"]),
                Route("/api/provider-runs/renew", self._renew, methods=["POST"]),
                Route(f"{run}/stream", self._stream),
                Route(f"{run}/stop", self._stop, methods=["POST"]),
                Route(f"{run}/human-loop/reply", self._reply, methods=["POST"]),
                Route(f"{run}/messages", self._message, methods=["POST"]),
                Route(f"{run}/park", self._park, methods=["POST"]),
                Route(f"{run}/files", self._files),
                Route(f"{run}/files/{{path:path}}", self._files),
                Route(f"{run}/bundle", self._files),
                Route("/api/providers", self._providers),
                Route("/api/executors", self._fleet),
                Route("/api/workspaces/{key}/forget", self._forget, methods=["POST"]),
                Route(run, self._show),
                Route(run, self._release, methods=["DELETE"]),
            ],
            exception_handlers=dict(EXCEPTION_HANDLERS),
        )

    async def _called(self, verb: str, request: Request) -> tuple[FakeExecutor, dict[str, Any]]:
        self.calls[verb] += 1
        content = await request.body()
        body = json.loads(content) if content else {}
        executor = self.executors.get(request.query_params["executor"])
        if executor is None or executor.gone:
            raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, "the executor was not reached", extra={"sent": False})
        if self.moods[verb]:
            await self.moods[verb].popleft()(self, executor, body)
        return executor, body

    async def _propose(self, request: Request) -> Response:
        self.calls["propose"] += 1
        asked = json.loads(await request.body())
        self.proposals.append(asked)
        if self.moods["propose"]:
            await self.moods["propose"].popleft()(self, next(iter(self.executors.values())), asked)
        able = {name: each for name, each in self.executors.items() if not each.gone and name not in asked["avoid"]}
        free = [each for each in able.values() if each.live < each.slots]
        owner = None if asked.get("movable") else able.get(asked.get("newestAt", ""))
        if owner is not None and owner not in free:
            named = {"executorId": owner.executor_id}
            raise RunyardError(ErrorCode.QUEUE_FULL, "it is full", retry_after=1, extra={"sent": False, **named})
        if not free:
            raise RunyardError(ErrorCode.QUEUE_FULL, "all are full", retry_after=1, extra={"sent": False})
        chosen = min(free, key=lambda each: each.live)
        return JSONResponse({
            "executorId": chosen.executor_id, "instance": chosen.instance, "url": "http://127.0.0.1:1",
            "clockMs": chosen.clock_ms(),
        })  # fmt: skip

    async def _start(self, request: Request) -> Response:
        executor, body = await self._called("start", request)
        return self.accept(executor, body)

    def accept(self, executor: FakeExecutor, body: dict[str, Any]) -> Response:
        key = (body["runId"], body["attempt"])
        if key not in executor.attempts:
            quote = body.get("leash")
            if key in executor.forbidden:
                raise RunyardError(ErrorCode.CONFLICT, "this attempt was stopped before it came")
            if quote and (quote["instance"] != executor.instance or executor.clock_ms() - quote["clockMs"] > self.leash_ms):
                raise RunyardError(ErrorCode.CONFLICT, "the quoted clock reading is not from this executor, or too old")
            if executor.live >= executor.slots:
                raise RunyardError(ErrorCode.QUEUE_FULL, "no slot", retry_after=1)
            attempt = executor.attempts[key] = FakeAttempt(*key, request=body)
            attempt.say("attempt.started", {**STARTED, "executorId": executor.executor_id})
        return JSONResponse({
            "runId": key[0], "attempt": key[1], "executorId": executor.executor_id, "instance": executor.instance,
            "clockMs": executor.clock_ms(),
        }, 201)  # fmt: skip

    async def _renew(self, request: Request) -> Response:
        executor, body = await self._called("renew", request)
        if executor.deaf_to_renewals:
            with suppress(TimeoutError):
                await asyncio.wait_for(executor.hears_again.wait(), 30)
        executor.renewals.append({**body, "readMs": executor.clock_ms()})
        known = {"executorId": executor.executor_id, "instance": executor.instance, "clockMs": executor.clock_ms()}
        return JSONResponse(known)

    async def _stop(self, request: Request) -> Response:
        executor, _ = await self._called("stop", request)
        key = (request.path_params["run_id"], int(request.query_params["attempt"]))
        attempt = executor.attempts.get(key)
        if attempt is None:
            executor.forbidden.add(key)
            return JSONResponse({"runId": key[0], "attempt": key[1], "status": "remembered"})
        attempt.stops += 1
        if not attempt.over and not attempt.stays:
            attempt.end(outcome="canceled", result=None)
        return JSONResponse({"runId": key[0], "attempt": key[1], "status": "stopping"})

    async def _reply(self, request: Request) -> Response:
        executor, body = await self._called("reply", request)
        attempt = self._attempt(executor, request)
        if attempt.over:
            raise RunyardError(ErrorCode.CONFLICT, "the attempt is ended")
        attempt.replies[body["questionId"]] = body
        return JSONResponse({"runId": attempt.run_id, "attempt": attempt.number, "questionId": body["questionId"]})

    async def _message(self, request: Request) -> Response:
        executor, body = await self._called("message", request)
        attempt = self._attempt(executor, request)
        attempt.messages.append(body)
        return JSONResponse({"runId": attempt.run_id, "attempt": attempt.number, "messageId": body["messageId"]})

    async def _park(self, request: Request) -> Response:
        executor, body = await self._called("park", request)
        return self.park(self._attempt(executor, request), body["questionIds"])

    def park(self, attempt: FakeAttempt, questions: list[str]) -> Response:
        if attempt.over or set(attempt.asked) != set(questions):
            raise RunyardError(ErrorCode.CONFLICT, "the engine does not wait for these questions")
        attempt.end(outcome="parked", result=None)
        return JSONResponse({"runId": attempt.run_id, "attempt": attempt.number, "status": "parking"})

    async def _providers(self, _request: Request) -> Response:
        known = {"provider": "scripted", "installed": True, "readinessCategory": "ready"}
        return JSONResponse({"items": [{**known, "capabilities": {"messages": self.takes_messages}}]})

    async def _fleet(self, _request: Request) -> Response:
        return JSONResponse({"items": [
            {"url": f"http://{name}", "reachable": not each.gone, "reason": "", "state": {
                "executorId": name, "instance": each.instance, "clockMs": each.clock_ms(), "slots": 4, "live": 0,
                "draining": False, "providers": [], "workspaces": [],
            }} for name, each in self.executors.items()
        ]})  # fmt: skip

    async def _forget(self, request: Request) -> Response:
        executor, body = await self._called("forget", request)
        key = request.path_params["key"]
        executor.forgotten.append({"workspace": key, **body})
        return JSONResponse({"workspace": key, "status": executor.forgets})

    async def _files(self, request: Request) -> Response:
        """What was asked for, said back: the path is the proof that nothing was changed on the way."""
        await self._called("files", request)
        asked = {"path": request.scope["raw_path"].decode(), "query": dict(request.query_params)}
        return JSONResponse(asked, headers={"content-disposition": "attachment", "x-own": "no"})

    async def _show(self, request: Request) -> Response:
        executor, _ = await self._called("show", request)
        attempt = self._attempt(executor, request)
        return JSONResponse({
            "runId": attempt.run_id, "attempt": attempt.number, "provider": "scripted",
            "status": "ended" if attempt.over else "running",
            "executorId": executor.executor_id, "instance": executor.instance, "startedAt": AT,
            "lastExecutorCursor": len(attempt.frames),
        })  # fmt: skip

    async def _release(self, request: Request) -> Response:
        executor, _ = await self._called("release", request)
        self._attempt(executor, request).released = True
        return Response(status_code=204)

    async def _stream(self, request: Request) -> Response:
        executor, _ = await self._called("stream", request)
        return EventStream(_Reading(self._attempt(executor, request), int(request.query_params["cursor"])), HEARTBEAT_SECONDS)

    def _attempt(self, executor: FakeExecutor, request: Request) -> FakeAttempt:
        return executor.find(request.path_params["run_id"], int(request.query_params["attempt"]))


class _Reading:
    """A stream of an attempt's journal; it ends after ``attempt.ended``, as an executor's does."""

    def __init__(self, attempt: FakeAttempt, cursor: int) -> None:
        self._attempt = attempt
        self._cursor = cursor
        self._cuts = attempt.cuts

    async def next(self, within: float) -> bytes | None:
        while self._attempt.silent:
            await asyncio.sleep(0.01)
        if self._attempt.cuts != self._cuts:
            raise CutError("cut by the test")
        if self._cursor < len(self._attempt.frames):
            block = b"".join(self._attempt.frames[self._cursor :])
            self._cursor = len(self._attempt.frames)
            return block
        if self._attempt.over:
            return None
        self._attempt.arrived.clear()
        try:
            async with asyncio.timeout(within):
                await self._attempt.arrived.wait()
        except TimeoutError:
            return HEARTBEAT
        return b""

    async def close(self) -> None:
        return None


# ---- moods ----


def refuse(code: ErrorCode, **extra: Any) -> Mood:
    """Nothing is done and the executor (or who stands before it) says why."""

    async def mood(_manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
        raise RunyardError(code, "as scripted", extra=extra)

    return mood


async def lose_the_answer(manager: FakeManager, executor: FakeExecutor, body: dict[str, Any]) -> None:
    """The executor does it, and nobody hears so."""
    manager.accept(executor, body)
    raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, "the executor gave no answer", extra={"sent": None})


async def lose_the_call(_manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
    """The executor never hears of it, and nobody knows."""
    raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, "the executor gave no answer", extra={"sent": None})


class Gate:
    """A mood that holds a call until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
        self.reached.set()
        await self.open.wait()
