"""A page of a run of a million events against one of a thousand; and T16: resuming a run against reading its rows."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import httpx

from control_plane.storage.runs import RunStore
from shared.sse import FrameReader
from shared.upstream import open_stream
from tests.bench.kit.ground import Database, Ground
from tests.bench.kit.meters import Stopwatch
from tests.bench.kit.roles import control_plane
from tests.bench.kit.runs import new_run, payload, pool_of
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between

LONG, SHORT = "page of 500 out of 1,000,000", "page of 500 out of 1,000"
RESUME, SELECT = "resume 4,096 events over the stream", "4,096 rows by paged SELECT"
PAGE, RESUMED = 500, 4096
FILL = """INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, fcmp_seq)
          SELECT $1, cursor, 1, 'message.delta', now(), $2, 0 FROM generate_series(2, $3::bigint - 1) AS cursor"""
END = """INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, fcmp_seq)
         VALUES ($1, $2, 1, 'run.status', now(), '{"status":"success","phase":null,"reason":"engine_succeeded"}', 0)"""
RAW_PAGE = "SELECT cursor, kind, at, data FROM run_events WHERE run_id = $1 AND cursor > $2 ORDER BY cursor LIMIT 512"


async def finished_run(connection: asyncpg.Connection, store: RunStore, run_id: str, events: int) -> None:
    """A run that succeeded with so many events."""
    await store.create(new_run(run_id), None)
    await connection.execute(FILL, run_id, payload(), events, timeout=300)
    await connection.execute(END, run_id, events)
    await connection.execute("UPDATE run_heads SET last_cursor = $2, claim_after = NULL WHERE run_id = $1", run_id, events)
    await connection.execute("UPDATE agent_runs SET status = 'running', started_at = now() WHERE id = $1", run_id)
    await connection.execute("UPDATE agent_runs SET status = 'success', finished_at = now() WHERE id = $1", run_id)


async def pages(http: httpx.AsyncClient, watched: Mapping[str, int], run_id: str, events: int) -> Figures:
    """Pages from places all over the run, as a client asks for them."""
    places, count = random.Random(7), 40
    watch = Stopwatch([("control plane", watched["control plane"])], [("postgres", watched["postgres"])])
    for _ in range(count):
        after = places.randrange(events - PAGE)
        answer = await http.get(f"/api/runs/{run_id}/events", params={"after": after, "limit": PAGE})
        assert len(answer.content) > PAGE * 300
    per = {f"{name} ms/page": seconds / count * 1e3 for name, seconds in watch.spent().items()}
    return {"ms/page": sum(per.values()), **per, "wall ms/page": watch.elapsed / count * 1e3}


async def resume(url: str, watched: Mapping[str, int], times: int) -> Figures:
    watch = Stopwatch([("control plane", watched["control plane"])], [("postgres", watched["postgres"])])
    for _ in range(times):
        stream, reader, frames = await open_stream(f"{url}/api/runs/resumed/stream", {"last-event-id": "0"}, 2), FrameReader(), 0
        while (block := await stream.next(30)) is not None:
            frames += len(reader.feed(block))
        assert frames == RESUMED, frames
    return {"events/s": RESUMED * times / watch.elapsed, "us/event": sum(watch.spent().values()) / RESUMED / times * 1e6}


async def select(database: Database, connection: asyncpg.Connection, times: int) -> Figures:
    watch = Stopwatch([("client", os.getpid())], [("postgres", database.server_pid)])
    for _ in range(times):
        cursor = 0
        while rows := await connection.fetch(RAW_PAGE, "resumed", cursor):
            cursor = rows[-1]["cursor"]
        assert cursor == RESUMED
    return {"events/s": RESUMED * times / watch.elapsed, "us/event": sum(watch.spent().values()) / RESUMED / times * 1e6}


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    long = ground.scaled(1_000_000, 100_000)
    async with ground.database() as database, pool_of(database.dsn) as pool:
        store, connection = RunStore(pool), await asyncpg.connect(database.dsn)
        for run_id, events in (("long", long), ("short", 1_000), ("resumed", RESUMED)):
            await finished_run(connection, store, run_id, events)
        await connection.execute("VACUUM (ANALYZE) run_events", timeout=300)
        server = await control_plane(ground, database)
        watched = {"control plane": server.pid, "postgres": database.server_pid}
        async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as http:
            yield {
                LONG: partial(pages, http, watched, "long", long),
                SHORT: partial(pages, http, watched, "short", 1_000),
                RESUME: partial(resume, server.url, watched, 5),
                SELECT: partial(select, database, connection, 5),
            }
        ground.end(server)
        await connection.close()


BENCH = Bench(
    name="pages",
    title="Pages of long and short runs; resuming",
    opened=opened,
    columns=("ms/page", "control plane ms/page", "postgres ms/page", "wall ms/page", "events/s", "us/event"),
    targets=(
        Target("1M", "CPU of a page of a 1,000,000-event run over one of a 1,000-event run", between(LONG, SHORT, "ms/page"), 1.3,
               required=True),
        Target("T16", "events/s of resuming a 4,096-event run over raw paged SELECT", between(RESUME, SELECT, "events/s"), 0.3,
               at_least=True),
    ),
    rounds=7,
    notes=("CPU of control plane and PostgreSQL; pages over HTTP from random places, the stream read by a third process.",),
)  # fmt: skip
