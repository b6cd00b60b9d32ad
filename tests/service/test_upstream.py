"""The stream reader against real sockets: what arrives, how it ends, and what a slow reader costs."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, UnknownOutcomeError
from shared.sse import CutError, EventStream, encode
from shared.upstream import MAX_UNREAD_BYTES, Upstream, open_stream
from shared.web import EXCEPTION_HANDLERS
from tests.loopback import BOUND_SECONDS, scripted_server, serving, until, unused_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def everything(upstream: Upstream) -> bytes:
    """All bytes up to the clean end; a cut raises."""
    blocks: list[bytes] = []
    async with asyncio.timeout(BOUND_SECONDS):
        while (block := await upstream.next(5.0)) is not None:
            blocks.append(block)
    return b"".join(blocks)


def once(*pieces: bytes):
    """A script that writes each piece by itself, then closes."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # lets the piece travel alone
        writer.close()
        await writer.wait_closed()

    return script


async def test_a_stream_is_handed_on_without_its_chunking_and_ends_with_the_last_chunk() -> None:
    frames = encode(1, "message.delta", b'{"a":1}') + encode(2, "message.delta", b'{"a":2}')
    async with scripted_server(once(HEAD, chunk(frames[:7]), chunk(frames[7:]), LAST)) as url:
        upstream = await open_stream(url + "/s", {}, 5.0)
        assert (upstream.status, upstream.headers["content-type"]) == (200, "text/event-stream")
        assert await everything(upstream) == frames
        assert await upstream.next(0.1) is None
        await upstream.close()


async def test_wherever_the_answer_is_split_the_bytes_are_the_same() -> None:
    whole = HEAD + chunk(b"one") + chunk("zwölf".encode()) + LAST
    for cut in range(1, len(whole)):
        upstream = Upstream()
        upstream.data_received(whole[:cut])
        upstream.data_received(whole[cut:])
        assert await everything(upstream) == "onezwölf".encode()


async def test_all_that_arrived_is_taken_in_one_piece() -> None:
    upstream = Upstream()
    upstream.data_received(HEAD + chunk(b"a") + chunk(b"b"))
    upstream.data_received(chunk(b"c"))
    assert await upstream.next(0.0) == b"abc"
    assert upstream._unread == 0, "what was taken no longer counts against the limit"


async def test_after_the_last_chunk_the_connection_is_given_up_whatever_the_server_does() -> None:
    left = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"all") + LAST)
        try:
            await reader.read()
        finally:
            left.set()

    async with scripted_server(script) as url:
        upstream = await open_stream(url, {}, 5.0)
        assert await everything(upstream) == b"all"
        async with asyncio.timeout(BOUND_SECONDS):
            await left.wait()


async def test_silence_is_told_apart_from_the_end() -> None:
    silent = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await silent.wait()
        writer.write(LAST)
        await writer.drain()

    async with scripted_server(script) as url:
        upstream = await open_stream(url, {}, 5.0)
        assert await upstream.next(0.02) == b""
        silent.set()
        assert await upstream.next(5.0) is None
        await upstream.close()


@pytest.mark.parametrize(
    "rest",
    [b"", chunk(b"whole") + b"5\r\nha", chunk(b"whole") + b"0\r\n", chunk(b"whole") + b"not a size\r\n"],
    ids=["after the head", "inside a chunk", "inside the last chunk", "garbage"],
)
async def test_a_connection_that_breaks_off_is_a_cut_and_what_came_before_is_not_lost(rest: bytes) -> None:
    async with scripted_server(once(HEAD + rest)) as url:
        upstream = await open_stream(url, {}, 5.0)
        got = b""
        with pytest.raises(CutError):  # noqa: PT012  reads until the cut
            while True:
                got += await upstream.next(5.0) or b""
        assert got.startswith(b"whole") or not rest
        await upstream.close()


async def test_a_body_that_only_the_closing_would_end_counts_as_cut() -> None:
    async with scripted_server(once(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"maybe all")) as url:
        upstream = await open_stream(url, {}, 5.0)
        with pytest.raises(CutError):
            await everything(upstream)
        await upstream.close()


async def test_a_reader_that_takes_nothing_pauses_its_source() -> None:
    written = 0

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(HEAD)
        for _ in range(1024):
            writer.write(chunk(b"x" * 65536))
            await writer.drain()
            written += 65536
        writer.write(LAST)
        await writer.drain()

    async with scripted_server(script) as url:
        upstream = await open_stream(url, {}, 5.0)
        await until(lambda: upstream._paused)
        assert upstream._unread < MAX_UNREAD_BYTES + 2 * 1024 * 1024
        assert written < 64 * 1024 * 1024, "the source could write everything: nothing held it back"
        assert len(await everything(upstream)) == 64 * 1024 * 1024
        await upstream.close()


async def test_closing_reaches_the_server_at_once_also_while_it_is_paused() -> None:
    left = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"x" * 1_000_000))
        try:
            await reader.read()
        finally:
            left.set()

    async with scripted_server(script) as url:
        upstream = await open_stream(url, {}, 5.0)
        await until(lambda: upstream._paused)
        await upstream.close()
        async with asyncio.timeout(BOUND_SECONDS):
            await left.wait()
        with pytest.raises(CutError):
            await upstream.next(1.0)


async def test_a_reader_that_is_closed_while_it_waits_wakes_up() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await reader.read()

    async with scripted_server(script) as url:
        upstream = await open_stream(url, {}, 5.0)
        waiting = asyncio.ensure_future(upstream.next(60.0))
        await until(lambda: upstream._waiter._future is not None)
        await upstream.close()
        with pytest.raises(CutError):
            await asyncio.wait_for(waiting, BOUND_SECONDS)


async def test_a_refusal_is_the_peers_own_problem() -> None:
    async def refuse(_request):
        raise RunyardError(ErrorCode.CONFLICT, "an older attempt", retry_after=7, extra={"highest": 3})

    app = Starlette(routes=[Route("/s", refuse)], exception_handlers=dict(EXCEPTION_HANDLERS))
    async with serving(app) as url:
        with pytest.raises(RunyardError) as caught:
            await open_stream(url + "/s", {}, 5.0)
    assert caught.value.code is ErrorCode.CONFLICT
    assert (caught.value.detail, caught.value.retry_after) == ("an older attempt", 7)
    assert caught.value.extra == {"highest": 3}


async def test_nothing_listening_was_never_sent_and_a_mute_server_is_an_unknown_outcome() -> None:
    with pytest.raises(NeverSentError):
        await open_stream(f"http://127.0.0.1:{unused_port()}/s", {}, 5.0)

    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted_server(mute) as url:
        with pytest.raises(UnknownOutcomeError, match=r"no answer within 0\.05 s"):
            await open_stream(url, {}, 5.0, answer_timeout=0.05)
    async with scripted_server(once()) as url:
        with pytest.raises(UnknownOutcomeError):
            await open_stream(url, {}, 5.0)
    async with scripted_server(once(b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops")) as url:
        with pytest.raises(UnknownOutcomeError, match="502"):
            await open_stream(url, {}, 5.0)


@pytest.mark.parametrize("value", ["1\r\nx-admin: yes", "1\n", "\x00"])
async def test_a_header_cannot_carry_another_one(value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        await open_stream("http://127.0.0.1:1/s", {"last-event-id": value}, 1.0)


async def test_it_reads_what_our_own_server_writes_and_sees_its_end_and_its_cut() -> None:
    class Three:
        """Three frames, then the clean end, or a cut."""

        def __init__(self, cut: bool) -> None:
            self.cut, self.left = cut, 3

        async def next(self, within: float) -> bytes | None:
            if self.left == 0:
                if self.cut:
                    raise CutError("gone")
                return None
            self.left -= 1
            return encode(3 - self.left, "message.delta", b"{}")

        async def close(self) -> None:
            pass

    async def stream(request):
        return EventStream(Three(request.query_params.get("cut") == "1"), 15.0)

    async with serving(Starlette(routes=[Route("/s", stream)])) as url:
        whole = await open_stream(url + "/s", {"authorization": "Bearer t"}, 5.0)
        assert (await everything(whole)).count(b"id: ") == 3
        cut = await open_stream(url + "/s?cut=1", {}, 5.0)
        with pytest.raises(CutError):
            await everything(cut)
        await cut.close()
