"""T7 and half of T8: runs a second through our stores and dispatcher, against procrastinate and pgqueuer on the same database."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import asyncpg
import procrastinate
import uvloop
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

from control_plane.app import Loops
from control_plane.domain.bounds import Bounds
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.run import Lease
from control_plane.runs.dispatch import Dispatcher
from control_plane.runs.leases import Leases
from control_plane.runs.record import Recorder
from control_plane.runs.room import Room
from control_plane.storage.pool import make_pool
from control_plane.storage.run_log import RunLog
from control_plane.storage.runs import RunStore
from control_plane.storage.wakeups import Channel, Wakeups
from shared.errors import ErrorCode
from tests.bench.kit.ground import Database, Ground, Role
from tests.bench.kit.meters import Stopwatch, percentile
from tests.bench.kit.runs import new_run, pool_of
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of

OURS, PROCRASTINATE, PGQUEUER = "ours", "procrastinate", "pgqueuer"
AT_ONCE = 16  # what our dispatcher claims at once; the others get as much
IN_FLIGHT = 8
PER_SECOND = 25
DRIVES = 500
Enqueue = Callable[[int], Awaitable[object]]


class Tally:
    """What a worker has taken up, told to whoever connects: ``{"done", "lateMs"}`` since the last question."""

    def __init__(self) -> None:
        self._done = 0
        self._late_ms: list[float] = []

    def taken(self, enqueued_at_ns: int) -> None:
        self._late_ms.append((time.time_ns() - enqueued_at_ns) / 1e6)

    def done(self) -> None:
        self._done += 1

    async def serve(self, port: int) -> None:
        async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            late_ms, self._late_ms = self._late_ms, []
            writer.write(json.dumps({"done": self._done, "lateMs": late_ms}).encode())
            writer.close()

        await asyncio.start_server(tell, "127.0.0.1", port)


async def told(role: Role) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", role.port)
    try:
        return json.loads(await reader.read())
    finally:
        writer.close()


# ---- the workers: each takes a job up, does nothing, and finishes it ----


@dataclass(frozen=True)
class _EndAtOnce:
    """In the place of ``DriveRun``: every run has its place at once, and ends there."""

    recorder: Recorder
    tally: Tally
    room: Room

    async def __call__(self, lease: Lease) -> None:
        self.tally.taken(int(lease.run_id))
        self.room.is_placed(lease.run_id)
        await self.recorder.record(lease, [Move(Signal.GIVEN_UP, ErrorCode.INTERNAL)])
        self.tally.done()


def our_worker(port: int, dsn: str) -> None:
    uvloop.run(_our_worker(port, dsn))


async def _our_worker(port: int, dsn: str) -> None:
    """The dispatcher, the leases and the recorder as the app puts them together; only the drive does nothing but end the run."""
    tally, fit = Tally(), Bounds()
    pool, lease_pool = make_pool(dsn), make_pool(dsn, 1)
    async with pool, lease_pool:
        wakeups = Wakeups(dsn)
        runs, recorder = RunStore(pool, wakeups.tell), Recorder(RunLog(pool, (wakeups.committed,)))
        leases = Leases(RunStore(lease_pool), fit.lease, fit.renew_every)
        drive = _EndAtOnce(recorder, tally, Room(time.monotonic))
        dispatcher = Dispatcher(runs, cast(Any, drive), cast(Any, None), leases, recorder, DRIVES)
        await tally.serve(port)
        async with asyncio.TaskGroup() as tasks:
            wakeups.hear({Channel.WORK: dispatcher.work_heard, Channel.INTENTS: dispatcher.intent_heard})
            for run in (recorder.run, leases.run, wakeups.run, dispatcher.run):
                tasks.create_task(run())


def procrastinate_worker(port: int, dsn: str) -> None:
    uvloop.run(_procrastinate_worker(port, dsn))


async def _procrastinate_worker(port: int, dsn: str) -> None:
    tally = Tally()
    app = _procrastinate_app(dsn, tally)
    await tally.serve(port)
    async with app.open_async():
        await app.run_worker_async(concurrency=AT_ONCE, wait=True, install_signal_handlers=False)


def _procrastinate_app(dsn: str, tally: Tally) -> procrastinate.App:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="job")
    async def job(at: int) -> None:
        tally.taken(at)
        tally.done()

    return app


def pgqueuer_worker(port: int, dsn: str) -> None:
    uvloop.run(_pgqueuer_worker(port, dsn))


async def _pgqueuer_worker(port: int, dsn: str) -> None:
    tally = Tally()
    async with asyncpg.create_pool(dsn, min_size=2, max_size=6) as pool:
        manager = QueueManager(Queries(AsyncpgPoolDriver(pool)))

        @manager.entrypoint("job")
        async def job(taken: Any) -> None:
            tally.taken(int(taken.payload))
            tally.done()

        await tally.serve(port)
        await manager.run(batch_size=AT_ONCE)


# ---- the callers ----


@asynccontextmanager
async def our_caller(dsn: str) -> AsyncGenerator[Enqueue]:
    wakeups = Wakeups(dsn)
    async with pool_of(dsn, IN_FLIGHT) as pool, Loops({"wakeups": wakeups.run}).running():
        store = RunStore(pool, wakeups.tell)
        yield lambda at: store.create(new_run(str(at)), None)


@asynccontextmanager
async def procrastinate_caller(dsn: str) -> AsyncGenerator[Enqueue]:
    app = _procrastinate_app(dsn, Tally())
    async with app.open_async():
        yield lambda at: app.tasks["job"].defer_async(at=at)


@asynccontextmanager
async def pgqueuer_caller(dsn: str) -> AsyncGenerator[Enqueue]:
    async with asyncpg.create_pool(dsn, min_size=IN_FLIGHT, max_size=IN_FLIGHT) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        yield lambda at: queries.enqueue("job", str(at).encode())


# ---- one turn ----

Caller = Callable[[str], AbstractAsyncContextManager[Enqueue]]


async def turn(ground: Ground, database: Database, worker: Callable[..., None], caller: Caller) -> Figures:
    role = await ground.role(worker, dsn=database.dsn)
    try:
        async with caller(database.dsn) as enqueue:
            await enqueue(time.time_ns())
            await _until_done(role, 1)  # it works, and both sides are warm
            found = await _backlog(role, database, enqueue, ground.scaled(1_000, 200))
            await told(role)
            return found | await _idle(role) | await _paced(role, enqueue, ground.scaled(50, 20))
    finally:
        ground.end(role)


async def _backlog(role: Role, database: Database, enqueue: Enqueue, jobs: int) -> dict[str, float]:
    """As fast as it goes, a few callers at once."""
    watch = Stopwatch([("callers", os.getpid()), ("worker", role.pid)], [("postgres", database.server_pid)])
    todo = iter(range(jobs))

    async def calling() -> None:
        for _ in todo:
            await enqueue(time.time_ns())

    async with asyncio.TaskGroup() as callers:
        for _ in range(IN_FLIGHT):
            callers.create_task(calling())
    await _until_done(role, jobs + 1)
    elapsed, spent = watch.elapsed, watch.spent()
    per = {f"{name} ms/run": seconds / jobs * 1e3 for name, seconds in spent.items()}
    return {"runs/s": jobs / elapsed, "CPU ms/run": sum(per.values()), **per}


async def _until_done(role: Role, jobs: int) -> None:
    async with asyncio.timeout(90):
        while (await told(role))["done"] < jobs:
            await asyncio.sleep(0.02)


async def _idle(role: Role) -> dict[str, float]:
    watch = Stopwatch([("worker", role.pid)])
    await asyncio.sleep(1.5)  # the idling is what is measured
    return {"idle worker ms/s": watch.spent()["worker"] / watch.elapsed * 1e3}


async def _paced(role: Role, enqueue: Enqueue, jobs: int) -> dict[str, float]:
    """One at a time, to a worker that has nothing else to do."""
    before = (await told(role))["done"]
    for _ in range(jobs):
        await enqueue(time.time_ns())
        await asyncio.sleep(1 / PER_SECOND)  # the pace of the callers
    late_ms: list[float] = []
    async with asyncio.timeout(30):
        while True:
            answer = await told(role)
            late_ms += answer["lateMs"]
            if answer["done"] >= before + jobs:
                break
            await asyncio.sleep(0.02)
    return {"pick-up p50 ms": percentile(late_ms, 50), "pick-up p99 ms": percentile(late_ms, 99)}


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    async with ground.database() as database:
        app = _procrastinate_app(database.dsn, Tally())
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
        connection = await asyncpg.connect(database.dsn)
        try:
            await Queries(AsyncpgDriver(connection)).install()
        finally:
            await connection.close()
        yield {
            OURS: partial(turn, ground, database, our_worker, our_caller),
            PROCRASTINATE: partial(turn, ground, database, procrastinate_worker, procrastinate_caller),
            PGQUEUER: partial(turn, ground, database, pgqueuer_worker, pgqueuer_caller),
        }


BENCH = Bench(
    name="queue",
    title="Runs created, claimed and ended; one worker process",
    opened=opened,
    columns=("runs/s", "CPU ms/run", "callers ms/run", "worker ms/run", "postgres ms/run", "pick-up p50 ms", "pick-up p99 ms",
             "idle worker ms/s"),
    targets=(
        Target("T7", "runs/s over procrastinate's", between(OURS, PROCRASTINATE, "runs/s"), 3, at_least=True, required=True),
        Target("T7", "runs/s over pgqueuer's", between(OURS, PGQUEUER, "runs/s"), 1.3, at_least=True, required=True),
        Target("T7", "CPU of a run over procrastinate's", between(OURS, PROCRASTINATE, "CPU ms/run"), 0.5),
        Target("T8", "pick-up by an idle worker, p50", of(OURS, "pick-up p50 ms"), 5, unit="ms"),
        Target("T8", "the same over procrastinate's", between(OURS, PROCRASTINATE, "pick-up p50 ms"), 1),
        Target("T8", "CPU of an idle worker", of(OURS, "idle worker ms/s"), 1, unit="ms/s"),
    ),
    notes=("Ours writes a run's summary, head, request and first event, and ends it with a second event; others keep a job row.",
           "Eight callers at once; every worker may take sixteen at once. Pick-up: 25 a second, one at a time."),
)  # fmt: skip
