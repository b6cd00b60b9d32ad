"""T1, T2, T3: what a relay hop costs when events come as fast as they can, against raw sockets and against httpx-sse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
import uvloop
from httpx_sse import EventSource
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from executor_manager.relay import Relay
from shared.http import ServiceClient
from shared.server import serve
from shared.sse import CutError, EventStream
from shared.upstream import open_stream
from tests.bench.kit.ground import Ground, Role
from tests.bench.kit.meters import Stopwatch
from tests.bench.kit.sources import HEARTBEAT_SECONDS, Feed, feed_of, raw_feed
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between

STREAMS = 4
OURS, RAW, REPARSED, COPIED = "ours", "raw sockets", "starlette + httpx-sse, written again", "starlette + httpx, raw bytes"


# ---- the sources ----


def our_source(port: int) -> None:
    """An executor's side: ready frames through our own stream response."""

    async def follow(request: Request) -> Response:
        return EventStream(Feed(feed_of(request.url.query)), HEARTBEAT_SECONDS)

    serve(lambda: Starlette(routes=[Route("/s", follow)]), "127.0.0.1", port)


def raw_source(port: int) -> None:
    uvloop.run(_raw_server(port, lambda query: raw_feed(feed_of(query))))


# ---- the hops ----


def our_relay(port: int, upstream: str) -> None:
    """The manager's own relay behind one route."""

    def build() -> Starlette:
        relay = Relay(ServiceClient("", None), None)

        async def follow(request: Request) -> Response:
            return await relay.follow(f"{upstream}/s", dict(request.query_params), None)

        return Starlette(routes=[Route("/s", follow)])

    serve(build, "127.0.0.1", port)


def raw_relay(port: int, upstream: str) -> None:
    """The limit: read what there is, write it on; no HTTP beyond the request's first line."""
    host, _, its_port = upstream.removeprefix("http://").partition(":")

    async def pieces(query: str) -> AsyncIterator[bytes]:
        reader, writer = await asyncio.open_connection(host, int(its_port))
        try:
            writer.write(f"GET /s?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            while block := await reader.read(65_536):
                yield block
        finally:
            writer.close()

    uvloop.run(_raw_server(port, pieces))


async def _raw_server(port: int, pieces: Any) -> None:
    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            query = request.split(b" ", 2)[1].decode().partition("?")[2]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            async for block in pieces(query):
                writer.write(block)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def httpx_relay(port: int, upstream: str, reparse: bool) -> None:
    """What one would write first: httpx (and httpx-sse) upstream, a streaming response downstream."""

    def build() -> Starlette:
        limits = httpx.Limits(max_connections=None)
        client = httpx.AsyncClient(timeout=httpx.Timeout(None), limits=limits, trust_env=False)

        async def pieces(query: str) -> AsyncIterator[bytes]:
            async with client.stream("GET", f"{upstream}/s?{query}") as answer:
                if not reparse:
                    async for block in answer.aiter_raw():
                        yield block
                    return
                async for event in EventSource(answer).aiter_sse():
                    if event.data:
                        yield f"id: {event.id}\nevent: {event.event}\ndata: {event.data}\n\n".encode()

        async def follow(request: Request) -> Response:
            return StreamingResponse(pieces(request.url.query), media_type="text/event-stream")

        return Starlette(routes=[Route("/s", follow)])

    serve(build, "127.0.0.1", port)


# ---- one turn ----


async def taken(url: str, query: str) -> int:
    """Reads one stream to its end; how many frames came."""
    stream, frames, rest = await open_stream(f"{url}/s?{query}", {}, 5), 0, b""
    try:
        while (block := await stream.next(60)) is not None:
            assert block, "a stream of the benchmark is silent"
            block = rest + block
            frames += block.count(b"\n\n")
            rest = block[-1:] if not block.endswith(b"\n\n") else b""
    except CutError:  # a raw end is not chunked, and so no end that could be told from a cut
        pass
    finally:
        await stream.close()
    return frames


async def flood(hops: list[Role], batch: int, events: int) -> Figures:
    """``hops``: the source first. Figures by the batch, so that arms of both sizes stand in one row."""
    names = ["source", *(f"hop {number}" for number in range(1, len(hops)))]
    watch = Stopwatch([(name, role.pid) for name, role in zip(names, hops, strict=True)])
    query = f"count={events // STREAMS}&batch={batch}"
    frames = await asyncio.gather(*(taken(hops[-1].url, query) for _ in range(STREAMS)))
    assert all(each >= events // STREAMS for each in frames), frames
    us = {name: spent / events * 1e6 for name, spent in watch.spent().items()}
    found = {f"{name} ×{batch} us": value for name, value in us.items() if name != "source"}
    return found | {f"all ×{batch} us": sum(us.values())}


async def both_batches(hops: list[Role], events: Mapping[int, int]) -> Figures:
    found: dict[str, float] = {}
    for batch, count in events.items():
        found |= await flood(hops, batch, count)
    return found


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    source, raw = await ground.role(our_source), await ground.role(raw_source)
    first, limit = await ground.role(our_relay, upstream=source.url), await ground.role(raw_relay, upstream=raw.url)
    hops = {
        OURS: [source, first, await ground.role(our_relay, upstream=first.url)],
        RAW: [raw, limit, await ground.role(raw_relay, upstream=limit.url)],
        REPARSED: [source, await ground.role(httpx_relay, upstream=source.url, reparse=True)],
        COPIED: [source, await ground.role(httpx_relay, upstream=source.url, reparse=False)],
    }
    many, few = ground.scaled(80_000, 16_000), ground.scaled(24_000, 8_000)
    counts = {
        OURS: {1: many, 16: 4 * many},
        RAW: {1: many, 16: 4 * many},
        REPARSED: {1: few, 16: few},
        COPIED: {1: few, 16: many},
    }
    yield {name: partial(both_batches, roles, counts[name]) for name, roles in hops.items()}
    for role in {role.pid: role for roles in hops.values() for role in roles}.values():
        ground.end(role)


BENCH = Bench(
    name="relay",
    title="A relay hop, flooded; 4 streams of 300-byte events",
    opened=opened,
    columns=("hop 1 ×1 us", "hop 1 ×16 us", "hop 2 ×1 us", "hop 2 ×16 us", "all ×1 us", "all ×16 us"),
    targets=(
        Target("T1", "source and two hops, 16 events a write, over raw sockets", between(OURS, RAW, "all ×16 us"), 3),
        Target("T2", "a hop, one event a write, over a raw one", between(OURS, RAW, "hop 1 ×1 us"), 3),
        Target("T3", "httpx-sse's hop over ours, one event a write", between(REPARSED, OURS, "hop 1 ×1 us"), 4, at_least=True),
        Target("T3", "httpx-sse's hop over ours, 16 events a write", between(REPARSED, OURS, "hop 1 ×16 us"), 4, at_least=True),
    ),
    notes=("CPU of each process per event; the reader at the end is not counted. Storing is not in it (see `delivery`).",),
)  # fmt: skip
