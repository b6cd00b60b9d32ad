"""The relay: bytes untouched, a cut is a cut, nothing leaks, nobody is made to wait in memory."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field

import pytest
from starlette.types import Message

from executor_manager import relay as relay_module
from shared.errors import ErrorCode, RunyardError
from shared.http import ServiceClient
from shared.server import Stopping
from shared.sse import HEARTBEAT, CutError, encode
from shared.upstream import Upstream
from tests.fake_executor import FakeExecutor, Source
from tests.loopback import BOUND_SECONDS, scripted_server, serving, until
from tests.service.executor_manager.conftest import TOKEN, Stack, manager


async def received(upstream: Upstream, expected: int) -> bytes:
    """The stream's bytes without its leading heartbeats, until there are ``expected`` of them."""
    got = bytearray()
    async with asyncio.timeout(BOUND_SECONDS):
        while len(got) < expected:
            block = await upstream.next(5.0)
            assert block is not None, "ended too early"
            got += block
            while got.startswith(HEARTBEAT):
                del got[: len(HEARTBEAT)]
    return bytes(got)


async def ended(upstream: Upstream) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while await upstream.next(5.0) is not None:
            pass


async def test_bytes_pass_untouched_however_frames_are_split(stack: Stack) -> None:
    source = stack.one.sources["r"] = Source()
    frames = encode(1, "message.delta", '{"text":"ü\u2028"}'.encode()) + b": hb\n\n" + encode(2, "log", b"x" * 100_000)
    pieces = [frames[:1], frames[1:9], frames[9:40], b"\xff\x00\r\n", frames[40:60_000], frames[60_000:]]
    upstream = await stack.follow("r")
    for piece in pieces:
        source.queue.put_nowait(piece)
    assert await received(upstream, len(b"".join(pieces))) == b"".join(pieces)
    source.queue.put_nowait(None)
    await ended(upstream)
    assert source.closed.is_set()


async def test_an_event_travels_at_once_not_when_the_next_one_comes(stack: Stack) -> None:
    source = stack.one.sources["r"] = Source()
    upstream = await stack.follow("r")
    for number in range(20):
        frame = encode(number, "message.delta", b"{}")
        source.queue.put_nowait(frame)
        assert await received(upstream, len(frame)) == frame
    await upstream.close()


async def test_where_to_go_on_and_which_attempt_reach_the_executor(stack: Stack) -> None:
    upstream = await stack.follow("r", "?executor=one&attempt=3&cursor=41", **{"last-event-id": "42"})
    method, path, query, _ = stack.one.calls[-1]
    assert (method, path, query) == ("GET", "/provider-runs/r/stream", {"attempt": "3", "cursor": "41"})
    assert stack.one.headers[-1]["last-event-id"] == "42"
    assert stack.one.headers[-1]["authorization"] == f"Bearer {TOKEN}"
    await upstream.close()


async def test_when_its_caller_leaves_the_upstream_is_closed(stack: Stack) -> None:
    source = stack.one.sources["r"] = Source()
    upstream = await stack.follow("r")
    source.queue.put_nowait(b": hb\n\n")
    await received(upstream, 0)
    await upstream.close()
    async with asyncio.timeout(5):
        await source.closed.wait()


async def test_a_cut_upstream_is_a_cut_here_at_once_after_what_came_before_it(stack: Stack) -> None:
    source = stack.one.sources["r"] = Source()
    upstream = await stack.follow("r")
    frame = encode(1, "message.delta", b"{}")
    source.queue.put_nowait(frame)
    assert await received(upstream, len(frame)) == frame
    source.queue.put_nowait(CutError("the executor dies"))
    async with asyncio.timeout(5):
        with pytest.raises(CutError):
            await ended(upstream)


async def test_an_upstream_that_falls_silent_is_a_cut(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "SILENCE_SECONDS", 0.1)
    upstream = await stack.follow("r")
    with pytest.raises(CutError):
        await ended(upstream)
    await until(lambda: stack.one.streams == 0)


async def test_a_slow_caller_pauses_the_executor_and_loses_nothing(stack: Stack) -> None:
    source = stack.one.sources["r"] = Source()
    block, count = b"x" * 65_536, 1024
    for _ in range(count):
        source.queue.put_nowait(block)
    source.queue.put_nowait(None)
    upstream = await stack.follow("r")
    await until(lambda: upstream._paused)
    seen = -1
    while seen != source.taken:
        seen = source.taken
        await asyncio.sleep(0.2)  # until the source has stopped for a while: it may still fill socket buffers
    assert seen < 40 * 1024 * 1024, "the whole stream was taken although nobody read it"
    assert len(await received(upstream, len(block) * count)) == len(block) * count
    await ended(upstream)


async def test_five_hundred_streams_dropped_at_once_leave_none(stack: Stack) -> None:
    streams = await asyncio.gather(*(stack.follow(f"r{number}") for number in range(500)))
    assert stack.one.streams == 500
    for each in streams:
        await each.close()
    await until(lambda: stack.one.streams == 0)
    assert stack.one.opened == 500
    assert all(source.closed.is_set() for source in stack.one.sources.values())


async def test_a_refused_stream_is_the_executors_problem_and_a_missing_executor_says_so(stack: Stack) -> None:
    with pytest.raises(RunyardError) as caught:
        await stack.follow("r", "?executor=nobody")
    assert (caught.value.code, caught.value.extra) == (ErrorCode.NOT_FOUND, {"sent": False})


async def test_a_file_comes_whole_with_its_own_head_and_not_more_of_it(stack: Stack) -> None:
    stack.one.files["a b/ü.bin"] = bytes(range(256)) * 10_000
    answer = await stack.http.get("/api/provider-runs/r/files/a b/ü.bin", params={"executor": "one"})
    assert answer.content == stack.one.files["a b/ü.bin"]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == "2560000"
    assert answer.headers["etag"] == '"e1"'
    assert "x-secret" not in answer.headers
    missing = await stack.http.get("/api/provider-runs/r/files/none", params={"executor": "one"})
    assert (missing.status_code, missing.json()["detail"]) == (404, "no such file")


async def test_a_file_that_breaks_off_is_cut_and_never_ends_short() -> None:
    async def script(_reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()

    async with scripted_server(script) as broken:
        client = ServiceClient("", None)
        relay = relay_module.Relay(client, None)
        download = await relay.download(f"{broken}/f", {})
        await client.close()
        sent, cuts = [], []

        async def receive() -> Message:
            await asyncio.Event().wait()
            return {}

        async def send(message):
            sent.append(message)

        await download({"type": "http", "method": "GET", "runyard.abort": lambda: cuts.append(1)}, receive, send)
    assert cuts == [1]
    assert relay._open_streams == set(), "the relay remembers a stream that is over"
    assert b"".join(each.get("body", b"") for each in sent) == b"half"
    assert all(each.get("more_body", True) for each in sent)


async def test_who_asks_for_a_files_head_only_gets_the_files_head(stack: Stack) -> None:
    stack.one.files["f"] = b"0123456789"
    head = await stack.http.head("/api/provider-runs/r/files/f", params={"executor": "one"})
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-type"], head.headers["content-length"]) == ("application/octet-stream", "10")
    missing = await stack.http.head("/api/provider-runs/r/files/none", params={"executor": "one"})
    assert missing.status_code == 404


@pytest.mark.parametrize("unspeakable", ["4\t2", "4\xa02"])
async def test_an_id_that_no_header_can_carry_on_is_refused_by_the_headers_name(stack: Stack, unspeakable: str) -> None:
    answer = await stack.http.get(
        "/api/provider-runs/r/stream", params={"executor": "one"}, headers={b"last-event-id": unspeakable.encode("latin-1")}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")
    assert stack.one.opened == 0


async def test_a_manager_that_is_told_to_end_cuts_its_streams_before_anything_else() -> None:
    one, stopping = FakeExecutor("one"), Stopping()
    async with serving(one.app()) as executor, manager(executor, stopping=stopping) as (url, http):
        await until(lambda: one.polls > 0)
        upstream = await Stack(url, one, one, http).follow("r")
        stopping.begin(signal.SIGTERM)
        async with asyncio.timeout(5):
            with pytest.raises(CutError):
                await ended(upstream)
        await until(lambda: one.streams == 0)
        readiness = await http.get("/readyz")
    assert (readiness.status_code, readiness.json()["reasons"]) == (503, ["the manager is stopping"])


async def test_a_manager_without_executors_serves_and_says_why_it_cannot_help() -> None:
    async with manager() as (_, http):
        answer = await http.get("/api/provider-runs/r")
    assert (answer.status_code, answer.json()["sent"]) == (503, False)


@dataclass
class LateExecutor:
    """An executor that waits before it answers, and notes when its caller has gone."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()
        try:
            await reader.read()  # the request ended before: this is its connection's end
        finally:
            self.left.set()


async def test_a_stream_that_opens_while_the_manager_leaves_is_refused_and_dropped() -> None:
    late = LateExecutor()
    async with scripted_server(late) as executor:
        client = ServiceClient("", None)
        relay = relay_module.Relay(client, None)
        opening = asyncio.create_task(relay.follow(f"{executor}/s", {}, None))
        await late.asked.wait()
        relay.leave()
        late.may_answer.set()
        with pytest.raises(RunyardError) as refused:
            await opening
        await client.close()
        assert (refused.value.code, refused.value.extra) == (ErrorCode.PROVIDER_UNAVAILABLE, {"sent": None})
        async with asyncio.timeout(BOUND_SECONDS):
            await late.left.wait()


async def test_a_caller_who_leaves_before_the_first_byte_leaves_no_stream_open() -> None:
    late = LateExecutor()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        """The server takes it, nobody reads it."""

    async with scripted_server(late) as executor:
        client = ServiceClient("", None)
        relay = relay_module.Relay(client, None)
        opening = asyncio.create_task(relay.follow(f"{executor}/s", {}, None))
        await late.asked.wait()
        late.may_answer.set()
        await (await opening)({"type": "http", "method": "GET"}, receive, send)
        await client.close()
        async with asyncio.timeout(BOUND_SECONDS):
            await late.left.wait()
        assert relay._open_streams == set()
