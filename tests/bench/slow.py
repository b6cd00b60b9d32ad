"""T13: what readers that take nothing cost the control plane, against the same run with readers that all take."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import httpx

from shared.sse import FrameReader
from shared.upstream import Upstream, open_stream
from tests.bench.delivery import executor_stand_in
from tests.bench.kit.ground import Database, Ground, Role
from tests.bench.kit.meters import pss_kib
from tests.bench.kit.roles import control_plane, executor_manager
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between

STALLED, LIVE = "50 of 100 never read", "100 read"
READERS = 100
WRITES_PER_SECOND, BATCH = 100, 16


async def to_the_end(stream: Upstream) -> int:
    reader, taken = FrameReader(), 0
    while (block := await stream.next(60)) is not None:
        taken += sum(frame.event == b"message.delta" for frame in reader.feed(block))
    return taken


async def never_read(role: Role, run_id: str) -> socket.socket:
    """Asks for the stream and takes nothing of it."""
    loop, connection = asyncio.get_running_loop(), socket.socket()
    connection.setblocking(False)
    await loop.sock_connect(connection, ("127.0.0.1", role.port))
    await loop.sock_sendall(connection, f"GET /api/runs/{run_id}/stream HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    return connection


async def followed(ground: Ground, database: Database, manager: Role, events: int, stalled: int) -> Figures:
    """A fresh control plane; how much it has grown when the run is over and its living readers have all of it."""
    server = await control_plane(ground, database, manager.url)
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as http:
            await _run_through(http, server, 500)
            before = pss_kib(server.pid)
            run_id = await _started(http, events)
            dead = [await never_read(server, run_id) for _ in range(stalled)]
            streams = [await _stream(server, run_id) for _ in range(READERS - stalled)]
            taken = await asyncio.gather(*map(to_the_end, streams))
            assert taken == [events] * len(streams), taken[:3]
            grown = pss_kib(server.pid) - before
            for connection in dead:
                connection.close()
        return {"growth MiB": grown / 1024}
    finally:
        ground.end(server)


async def _started(http: httpx.AsyncClient, events: int) -> str:
    body = {"provider": "scripted", "prompt": f"{events} {BATCH} {WRITES_PER_SECOND}"}
    return (await http.post("/api/runs/start", json=body)).raise_for_status().json()["runId"]


async def _stream(server: Role, run_id: str) -> Upstream:
    return await open_stream(f"{server.url}/api/runs/{run_id}/stream", {}, 5)


async def _run_through(http: httpx.AsyncClient, server: Role, events: int) -> None:
    """One small run, so that what every run needs once is there."""
    await to_the_end(await _stream(server, await _started(http, events)))


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    events = ground.scaled(8_000, 1_600)
    async with ground.database() as database:
        executor = await ground.role(executor_stand_in)
        manager = await executor_manager(ground, executor.url)
        yield {
            STALLED: partial(followed, ground, database, manager, events, READERS // 2),
            LIVE: partial(followed, ground, database, manager, events, 0),
        }
        ground.end(manager)
        ground.end(executor)


BENCH = Bench(
    name="slow",
    title="Readers that take nothing: growth of the control plane, 1,600 events of 300 bytes a second",
    opened=opened,
    columns=("growth MiB",),
    targets=(Target("T13", "growth with half of the readers stalled over none", between(STALLED, LIVE, "growth MiB"), 1.5),),
    rounds=3,
    notes=("Growth of the control plane's PSS, a fresh one each time; three rounds.",),
)
