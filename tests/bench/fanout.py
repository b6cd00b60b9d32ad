"""T10: one run followed by five hundred readers of one process, against a publisher that writes to every socket itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control_plane.domain.recording import Change, NewEvent
from control_plane.routes.runs import HEARTBEAT_SECONDS, RETRY_MS
from control_plane.runs.follow import TailHub
from control_plane.storage.events import EventStore
from control_plane.storage.pool import make_pool
from control_plane.storage.pool import opened as open_pool
from control_plane.storage.runs import RunStore
from control_plane.views.api import frame
from shared.contracts.runs import RunStatus
from shared.server import serve
from shared.sse import EventStream, FrameReader
from shared.upstream import Upstream, open_stream
from tests.bench.kit.ground import Ground, Role
from tests.bench.kit.meters import Stopwatch, percentile
from tests.bench.kit.runs import AT, payload
from tests.bench.kit.sources import sent_at_ns
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of

RUN = "run_followed"
READERS = 500
WAKES_PER_SECOND = 10.0
OURS, DIRECT = "our tails and streams", "direct writes (limit)"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def events(first: int, count: int) -> list[NewEvent]:
    """They carry the time they were made at, in ns of the clock all processes share."""
    stamped = f'{{"t":{time.perf_counter_ns()},{payload()[1:]}'
    return [NewEvent(first + index, 1, "message.delta", AT, stamped) for index in range(count)]


# ---- the two servers ----


def ours(port: int, dsn: str) -> None:
    """The control plane's own tails behind its own streams; events come as if a window had just been committed."""

    def build() -> Starlette:
        pool = make_pool(dsn, 2)
        hub = TailHub(RunStore(pool), EventStore(pool))
        last = 0

        async def follow(_request: Request) -> Response:
            return EventStream(hub.join(RUN, last, last), HEARTBEAT_SECONDS, RETRY_MS)

        async def publish(request: Request) -> Response:
            nonlocal last
            count = int(request.query_params["count"])
            if count:
                hub.committed([Change(RUN, RunStatus.RUNNING, last_cursor=last + count, events=events(last + 1, count))])
                last += count
            return JSONResponse({"readers": hub.readers})

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
            async with open_pool(pool):
                polling = asyncio.ensure_future(hub.run())
                yield
                polling.cancel()

        return Starlette(routes=[Route("/s", follow), Route("/publish", publish, methods=["POST"])], lifespan=lifespan)

    serve(build, "127.0.0.1", port)


def direct(port: int) -> None:
    """The limit: no task per reader, no framework; the publisher writes one encoded block to every transport."""
    uvloop.run(_direct(port))


async def _direct(port: int) -> None:
    readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
    last = 0

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET"):
            writer.write(HEAD)
            readers[writer] = reader
            return
        count = int(request.split(b"count=", 1)[1].split(b" ", 1)[0])
        for gone in [each for each, its in readers.items() if its.at_eof() or its.exception() or each.is_closing()]:
            del readers[gone]
            gone.close()
        if count:
            block = b"".join(frame(RUN, each) for each in events(last + 1, count))
            last += count
            for each in readers:
                each.write(b"%x\r\n%b\r\n" % (len(block), block))
        body = b'{"readers":%d}' % len(readers)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# ---- the readers ----


class _Readers:
    """Five hundred streams of one server, counted."""

    def __init__(self) -> None:
        self.delivered = 0
        self.late_ms: list[float] = []
        self._streams: list[Upstream] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, url: str, count: int) -> None:
        for _ in range(count):
            self._streams.append(await open_stream(f"{url}/s", {}, 5))
        self._tasks = [asyncio.create_task(self._read(each)) for each in self._streams]

    async def _read(self, stream: Upstream) -> None:
        reader = FrameReader()
        while (block := await stream.next(60)) is not None:
            sent = sent_at_ns(reader.feed(block))
            self.late_ms += [(time.perf_counter_ns() - each) / 1e6 for each in sent[:1]]
            self.delivered += len(sent)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            await stream.close()


async def delivered(role: Role, burst: int, wakes: int) -> Figures:
    readers = _Readers()
    async with httpx.AsyncClient(base_url=role.url, timeout=30, trust_env=False) as http:
        try:
            await readers.open(role.url, READERS)
            await _all_there(http)
            await http.post("/publish", params={"count": burst})
            await _until(readers, READERS * burst)  # everyone is warm
            before, watch = readers.delivered, Stopwatch([("server", role.pid)])
            readers.late_ms.clear()
            for wake in range(wakes):
                await asyncio.sleep(max(0.0, wake / WAKES_PER_SECOND - watch.elapsed))  # the pace
                await http.post("/publish", params={"count": burst})
            await _until(readers, before + wakes * READERS * burst)
            us = watch.spent()["server"] / (readers.delivered - before) * 1e6
        finally:
            await readers.close()
    return {f"us/delivery ×{burst}": us, f"p50 ms ×{burst}": percentile(readers.late_ms, 50)}


async def _all_there(http: httpx.AsyncClient) -> None:
    """And nobody of the arm before."""
    async with asyncio.timeout(60):
        while (await http.post("/publish", params={"count": 0})).json()["readers"] != READERS:
            await asyncio.sleep(0.05)


async def _until(readers: _Readers, expected: int) -> None:
    async with asyncio.timeout(60):
        while readers.delivered < expected:
            await asyncio.sleep(0.005)


async def both_bursts(server: Role, wakes: int) -> Figures:
    found: dict[str, Any] = {}
    for burst in (1, 8):
        found |= await delivered(server, burst, wakes)
    return found


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    wakes = ground.scaled(20, 5)
    async with ground.database() as database:
        served = {OURS: await ground.role(ours, dsn=database.dsn), DIRECT: await ground.role(direct)}
        yield {name: partial(both_bursts, role, wakes) for name, role in served.items()}
        for role in served.values():
            ground.end(role)


BENCH = Bench(
    name="fanout",
    title="One run, 500 readers, 10 wakes a second",
    opened=opened,
    columns=("us/delivery ×1", "us/delivery ×8", "p50 ms ×1", "p50 ms ×8"),
    targets=(
        Target("T10", "a delivery to one of 500 over a direct write, 1 event a wake", between(OURS, DIRECT, "us/delivery ×1"),
               2.5, required=True),
        Target("T10", "the same, 8 events a wake", between(OURS, DIRECT, "us/delivery ×8"), 2.5, required=True),
        Target("T10", "CPU of a delivery, 1 event a wake", of(OURS, "us/delivery ×1"), 25, unit="µs"),
        Target("T10", "CPU of a delivery, 8 events a wake", of(OURS, "us/delivery ×8"), 4, unit="µs"),
    ),
    notes=("CPU of the serving process. Both serve from memory: what storing costs is another benchmark.",),
)  # fmt: skip
