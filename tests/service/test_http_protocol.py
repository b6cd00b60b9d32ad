"""What a connection may take of us before it has asked for anything: raw bytes against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shared.http_protocol import MAX_HEAD_BYTES, BoundedHttpProtocol
from shared.sse import EventStream
from tests.fake_executor import Source
from tests.loopback import BOUND_SECONDS, serving, until

GET = b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"
BOUND = 0.3


class Hasty(BoundedHttpProtocol):
    head_seconds = BOUND
    body_seconds = BOUND


class Peer:
    """The app behind the server under test, and what it saw."""

    def __init__(self) -> None:
        self.source = Source()
        self.broke_off = 0
        self.may_read = asyncio.Event()
        self.may_read.set()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/echo", self._echo, methods=["GET", "POST"]), Route("/stream", self._stream)])

    async def _echo(self, request: Request) -> Response:
        await self.may_read.wait()
        try:
            return PlainTextResponse(f"{len(await request.body())} bytes")
        except ClientDisconnect:
            self.broke_off += 1
            return Response(status_code=400)

    async def _stream(self, _request: Request) -> Response:
        return EventStream(self.source, heartbeat_seconds=BOUND_SECONDS)


@asynccontextmanager
async def connected(
    peer: Peer | None = None, http: type[BoundedHttpProtocol] = Hasty
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with serving((peer or Peer()).app(), http=http) as url:
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        async with asyncio.timeout(BOUND_SECONDS):
            yield reader, writer
        writer.transport.abort()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All that comes before the server closes the connection, however it does."""
    found = b""
    try:
        while block := await reader.read(65536):
            found += block
    except ConnectionError:
        pass
    return found


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head[9:12] + b" " + await reader.readexactly(length)


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /echo HTTP/1.1\r\n", b"x-more: %s\r\n" % (b"a" * 1000)),
        (b"GET /echo HTTP/1.1\r\nx-long: ", b"a" * 1000),
        (b"GET /", b"a" * 1000),
        (b"", b"\r\n" * 500),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"x-trailer: %s\r\n" % (b"a" * 1000)),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 1000),
    ],
    ids=["headers", "one header", "path", "empty lines", "trailers", "chunk extension"],
)
async def test_a_head_that_does_not_end_is_refused_long_before_it_fills_memory(endless: tuple[bytes, bytes]) -> None:
    begin, more = endless
    async with connected(http=BoundedHttpProtocol) as (reader, writer):
        closed = asyncio.ensure_future(everything(reader))
        writer.write(begin)
        sent = 0
        while not closed.done() and sent < 64 * MAX_HEAD_BYTES:
            writer.write(more)
            sent += len(more)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)  # the server shares this loop
        assert sent < 1024 * 1024
        assert b" 200 " not in await closed


async def test_a_head_of_the_size_heads_have_is_none_of_this() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET /echo HTTP/1.1\r\nx-long: %s\r\n\r\n" % (b"a" * (MAX_HEAD_BYTES - 100)))
        assert await answer(reader) == b"200 0 bytes"


@pytest.mark.parametrize("half", [b"", b"GET /echo HT", GET[:-2], b"\r\n"], ids=["nothing", "line", "head", "empty line"])
async def test_a_connection_that_does_not_finish_a_head_is_closed(half: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(half)
        assert await everything(reader) == b""


@pytest.mark.parametrize("half", [b"GET /echo HT", b"\r\n"])
async def test_nor_may_it_take_longer_once_it_was_served(half: bytes) -> None:
    class PatientWithBodies(Hasty):
        body_seconds = BOUND_SECONDS * 2

    async with connected(http=PatientWithBodies) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        await asyncio.sleep(BOUND * 1.5)  # by now it looks for nothing but this body's end
        writer.write(b"a" * 10)
        assert await answer(reader) == b"200 10 bytes"
        writer.write(half)
        assert await everything(reader) == b""


async def test_a_connection_that_rests_between_requests_is_kept_as_long_as_the_server_keeps_any() -> None:
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(GET)
            assert await answer(reader) == b"200 0 bytes"
            await asyncio.sleep(BOUND * 1.5)  # rests longer than a head may take
        assert not reader.at_eof()


async def test_a_body_that_stops_coming_is_broken_off() -> None:
    peer = Peer()
    async with connected(peer) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        assert await everything(reader) == b""
        await until(lambda: peer.broke_off == 1)


async def test_a_body_that_comes_slowly_is_taken() -> None:
    class Patient(Hasty):
        body_seconds = 1.5

    async with connected(http=Patient) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.2)  # slow, yet moving: longer in all than nothing may come
            writer.write(b"a")
        assert await answer(reader) == b"200 10 bytes"


async def test_a_body_is_not_late_while_we_are() -> None:
    peer, size = Peer(), 1_000_000
    peer.may_read.clear()
    async with connected(peer) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"a" * size)
        await asyncio.sleep(BOUND * 2)  # the app is busy for longer than a body may rest
        peer.may_read.set()
        assert await answer(reader) == b"200 %d bytes" % size


async def test_a_stream_may_be_silent_and_its_reader_too() -> None:
    peer = Peer()
    async with connected(peer) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n\r\n")
        await reader.readuntil(b": hb\n\n")
        writer.write(b"\r\n")
        await asyncio.sleep(BOUND * 3)  # silent for longer than any half request may be
        peer.source.queue.put_nowait(b"data: still here\n\n")
        peer.source.queue.put_nowait(None)
        assert b"still here" in await reader.readuntil(b"\r\n0\r\n\r\n")
