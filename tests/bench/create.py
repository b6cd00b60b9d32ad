"""T9: starting a run over HTTP against an endpoint that does one INSERT and nothing else."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import uvicorn

from control_plane.app import build_app
from control_plane.settings import Settings
from shared.ids import random_id
from shared.server import Stopping, serve
from tests.bench.kit.ground import Database, Ground, Role
from tests.bench.kit.meters import Stopwatch
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between

OURS, BARE = "POST /api/runs/start", "bare endpoint, one INSERT"
CONNECTIONS = 16
BODY = json.dumps({"provider": "scripted", "prompt": "p" * 120, "metadata": {"a": 1}}).encode()
INSERT = "INSERT INTO bare_runs (idem, args) VALUES ($1, $2) ON CONFLICT (idem) DO NOTHING RETURNING id"


def ours(port: int, dsn: str) -> None:
    """The whole app of a draining replica: it takes runs and claims none, so that only their starting is measured."""
    stopping = Stopping()

    def build() -> Any:
        settings = Settings.model_validate({
            "DATABASE_URL": dsn, "RUNYARD_AUTH": "off", "RUNYARD_QUEUE_LIMIT": 1_000_000,
            "EXECUTOR_MANAGER_URLS": "http://127.0.0.1:9",
        })  # fmt: skip
        app = build_app(settings, stopping=stopping)
        stopping.begin(signal.SIGTERM)
        return app

    serve(build, "127.0.0.1", port)


def bare(port: int, dsn: str) -> None:
    """uvicorn with its C parts, no framework, one statement."""
    pools: list[asyncpg.Pool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if not pools:
            pools.append(await asyncpg.create_pool(dsn, min_size=4, max_size=10))
        body = (await receive())["body"]
        json.loads(body)
        made = await pools[0].fetchval(INSERT, random_id("run"), body.decode())
        answer = b'{"id":%d}' % made
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 201, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_config=None
    )


async def posts(role: Role, database: Database, requests: int) -> Figures:
    """Keep-alive connections, one request at a time on each."""
    head = b"POST /api/runs/start HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    todo = iter(range(requests))

    async def calling() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", role.port)
        for _ in todo:
            writer.write(head + BODY)
            answered = await reader.readuntil(b"\r\n\r\n")
            assert answered.startswith((b"HTTP/1.1 201", b"HTTP/1.1 202")), answered
            await reader.readexactly(int(answered.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
        writer.close()

    await asyncio.wait_for(calling_once(role, head), 10)
    watch = Stopwatch([("server", role.pid)], [("postgres", database.server_pid)])
    async with asyncio.TaskGroup() as callers:
        for _ in range(CONNECTIONS):
            callers.create_task(calling())
    elapsed, spent = watch.elapsed, watch.spent()
    us = {f"{name} us": seconds / requests * 1e6 for name, seconds in spent.items()}
    return us | {"both us": sum(us.values()), "requests/s": requests / elapsed}


async def calling_once(role: Role, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", role.port)
    writer.write(head + BODY)
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def emptied(database: Database, role: Role, requests: int) -> Figures:
    """Without the queue the turn before has left."""
    connection = await asyncpg.connect(database.dsn)
    try:
        await connection.execute("TRUNCATE agent_runs, bare_runs CASCADE")
    finally:
        await connection.close()
    return await posts(role, database, requests)


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    async with ground.database() as database:
        connection = await asyncpg.connect(database.dsn)
        await connection.execute("CREATE TABLE bare_runs (id bigserial PRIMARY KEY, idem text UNIQUE, args jsonb)")
        await connection.close()
        served = {OURS: await ground.role(ours, dsn=database.dsn), BARE: await ground.role(bare, dsn=database.dsn)}
        yield {name: partial(emptied, database, role, ground.scaled(1_000, 200)) for name, role in served.items()}
        for role in served.values():
            ground.end(role)


BENCH = Bench(
    name="create",
    title="Starting a run over HTTP, 16 connections",
    opened=opened,
    columns=("server us", "postgres us", "both us", "requests/s"),
    targets=(Target("T9", "CPU of the server over the bare endpoint's", between(OURS, BARE, "server us"), 1.5),),
    notes=("Ours validates, resolves defaults, counts the queue and writes four rows in one transaction; a hint follows.",),
)  # fmt: skip
