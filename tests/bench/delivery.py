"""T6, and T4 end to end: events stored and delivered, executor to client, through a real manager and a real control plane.

The executor is a stand-in that speaks its protocol and serves ready frames, so that no engine is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import asyncpg
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.clock import monotonic_ms
from shared.contracts.events import AttemptEnded, AttemptOutcome
from shared.contracts.provider_runs import ExecutorState, LeashRenewed, ProviderRunAccepted
from shared.contracts.providers import Capabilities, Provider, ProviderReadiness, ReadinessCategory
from shared.server import serve
from shared.sse import EventStream, FrameReader, encode
from shared.upstream import open_stream
from tests.bench.append import RUNS, Appending
from tests.bench.kit.ground import Database, Ground, Role
from tests.bench.kit.meters import Stopwatch, percentile
from tests.bench.kit.roles import control_plane, executor_manager
from tests.bench.kit.runs import payload, pool_of, running_runs
from tests.bench.kit.sources import sent_at_ns
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of

FLOOD, PACED, BARE = "stored and delivered, flood", "stored and delivered, 50 a second", "bare unnest ×64"
NAME, INSTANCE = "executor-1", "executor-1.i1"
AT = "2026-01-01T00:00:00.000Z"
PAYLOAD = payload()
HEARTBEAT_SECONDS = 2.0


# ---- the executor's stand-in ----


class Attempt:
    """``shared.sse.Blocks``: so many numbered events, as fast as they go or at a pace, and the attempt's end."""

    def __init__(self, run_id: str, count: int, batch: int, rate: float) -> None:
        self._run_id = run_id
        self._count = count
        self._batch = batch
        self._rate = rate
        self._cursor = 0
        self._next_at = time.perf_counter()

    async def next(self, within: float) -> bytes | None:
        if self._cursor > self._count:
            return None
        if self._cursor == self._count:
            return self._frame("attempt.ended", AttemptEnded(outcome=AttemptOutcome.SUCCESS).wire_json())
        if self._rate:
            self._next_at += 1 / self._rate
        await asyncio.sleep(max(0.0, self._next_at - time.perf_counter()) if self._rate else 0)  # the pace
        stamped = f'{{"t":{time.perf_counter_ns()},{PAYLOAD[1:]}'
        return b"".join(self._frame("message.delta", stamped) for _ in range(min(self._batch, self._count - self._cursor)))

    def _frame(self, kind: str, data: str) -> bytes:
        self._cursor += 1
        envelope = (
            f'{{"executorCursor":{self._cursor},"runId":"{self._run_id}","attempt":1,"at":"{AT}","kind":"{kind}","data":{data}}}'
        )
        return encode(self._cursor, kind, envelope.encode())

    async def close(self) -> None:
        return None


def executor_stand_in(port: int) -> None:
    """Takes every start; the prompt says how many events, how many a write and how many writes a second."""
    prompts: dict[str, list[int]] = {}
    ready = ProviderReadiness(
        provider=Provider.SCRIPTED, installed=True, readiness_category=ReadinessCategory.READY, capabilities=Capabilities()
    )

    async def state(_request: Request) -> Response:
        known = ExecutorState(executor_id=NAME, instance=INSTANCE, clock_ms=monotonic_ms(), slots=100, live=0, draining=False,
                              providers=[ready], workspaces=[])  # fmt: skip
        return Response(known.wire_json(), media_type="application/json")

    async def start(request: Request) -> Response:
        body = await request.json()
        prompts[body["runId"]] = [int(each) for each in body["messages"][-1]["content"].split()]
        accepted = ProviderRunAccepted(
            run_id=body["runId"], attempt=1, executor_id=NAME, instance=INSTANCE, clock_ms=monotonic_ms()
        )
        return Response(accepted.wire_json(), 201, media_type="application/json")

    async def renew(_request: Request) -> Response:
        renewed = LeashRenewed(executor_id=NAME, instance=INSTANCE, clock_ms=monotonic_ms())
        return Response(renewed.wire_json(), media_type="application/json")

    async def follow(request: Request) -> Response:
        run_id = request.path_params["run_id"]
        return EventStream(Attempt(run_id, *prompts[run_id]), HEARTBEAT_SECONDS)

    async def release(_request: Request) -> Response:
        return Response(status_code=204)

    run = "/provider-runs/{run_id}"
    routes = [
        Route("/executor", state), Route("/provider-runs/start", start, methods=["POST"]),
        Route("/provider-runs/renew", renew, methods=["POST"]), Route(f"{run}/stream", follow),
        Route(run, release, methods=["DELETE"]),
    ]  # fmt: skip
    serve(lambda: Starlette(routes=routes), "127.0.0.1", port)


# ---- one turn ----


@dataclass(frozen=True, slots=True)
class Chain:
    executor: Role
    manager: Role
    control_plane: Role
    database: Database

    def watch(self) -> Stopwatch:
        services = [("executor", self.executor.pid), ("manager", self.manager.pid), ("control plane", self.control_plane.pid)]
        return Stopwatch(services, [("postgres", self.database.server_pid)])


async def delivered(chain: Chain, http: httpx.AsyncClient, count: int, batch: int, rate: int) -> Figures:
    """One run from its start to its last event in the client's hand."""
    late_ms: list[float] = []
    watch = chain.watch()
    body = {"provider": "scripted", "prompt": f"{count} {batch} {rate}"}
    run_id = (await http.post("/api/runs/start", json=body)).raise_for_status().json()["runId"]
    stream, reader = await open_stream(f"{chain.control_plane.url}/api/runs/{run_id}/stream", {}, 5), FrameReader()
    while (block := await stream.next(60)) is not None:
        now = time.perf_counter_ns()
        late_ms += [(now - sent) / 1e6 for sent in sent_at_ns(reader.feed(block))]
    elapsed, spent = watch.elapsed, watch.spent()
    assert len(late_ms) == count, f"{len(late_ms)} of {count}"
    us = {f"{name} us": seconds / count * 1e6 for name, seconds in spent.items()}
    return us | {"events/s": count / elapsed, "us/event": sum(us.values()), "p50 ms": percentile(late_ms, 50),
                 "p99 ms": percentile(late_ms, 99)}  # fmt: skip


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    count = ground.scaled(32_000, 6_400)
    async with ground.database() as database, pool_of(database.dsn) as pool:
        bare = await asyncpg.connect(database.dsn)
        appending = Appending(database, pool, await running_runs(pool, RUNS), bare)
        executor = await ground.role(executor_stand_in)
        manager = await executor_manager(ground, executor.url)
        chain = Chain(executor, manager, await control_plane(ground, database, manager.url), database)
        async with httpx.AsyncClient(base_url=chain.control_plane.url, timeout=30, trust_env=False) as http:
            await delivered(chain, http, 100, 10, 0)  # warm, and the manager has seen its fleet
            yield {
                FLOOD: partial(delivered, chain, http, count, 16, 0),
                PACED: partial(delivered, chain, http, ground.scaled(150, 50), 1, 50),
                BARE: partial(appending.measured, partial(appending.unnest, 64), count),
            }
        for role in (chain.control_plane, manager, executor):
            ground.end(role)
        await bare.close()


BENCH = Bench(
    name="delivery",
    title="Stored and delivered over three hops: executor, manager, control plane, client",
    opened=opened,
    columns=("events/s", "us/event", "executor us", "manager us", "control plane us", "postgres us", "p50 ms", "p99 ms"),
    targets=(
        Target("T6", "events/s stored and delivered over bare append", between(FLOOD, BARE, "events/s"), 0.5, at_least=True),
        Target("T4", "p50 end to end, stored, 50 events a second", of(PACED, "p50 ms"), 25, unit="ms"),
    ),
    notes=("Real manager and control plane, one run at a time; the executor is a stand-in with ready frames, 16 a write.",),
)  # fmt: skip
