"""No event lost, doubled or reordered, at any reader, from any cursor."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import pytest

from shared.sse import Frame
from tests.e2e.kit import Stack, script

COUNT = 5_000


@pytest.fixture(scope="session")
def _long_run() -> dict[str, str]:
    return {}


@pytest.fixture
async def long_run(stack: Stack, _long_run: dict[str, str]) -> str:
    """A finished run of more than 5,000 events, made once."""
    if stack.facts["pid"] not in _long_run:
        run_id = await stack.start(script({"repeat": {"count": COUNT, "everyMs": 0, "say": "tick {i}"}}))
        await stack.until(run_id, within=120)
        _long_run[stack.facts["pid"]] = run_id
    return _long_run[stack.facts["pid"]]


def ids(frames: list[Frame]) -> list[int]:
    return [int(frame.id) for frame in frames]


async def test_five_thousand_events_are_contiguous_from_one(stack: Stack, long_run: str) -> None:
    events = await stack.check(long_run)
    assert len(events) > COUNT
    said = [event["data"]["text"] for event in events if event["kind"] == "message.completed"]
    assert said == [f"tick {n}" for n in range(1, COUNT + 1)]


async def test_resuming_from_any_cursor_gives_exactly_the_rest(stack: Stack, long_run: str) -> None:
    whole = await stack.followed(long_run)
    for cursor in [0, 1, 2, 511, 512, 513, len(whole) - 1, len(whole), *random.Random(7).sample(range(len(whole)), 8)]:
        assert await stack.followed(long_run, cursor=cursor) == whole[cursor:]
        assert await stack.followed(long_run, header=cursor) == whole[cursor:]


async def test_the_header_wins_over_the_query(stack: Stack, long_run: str) -> None:
    frames = await stack.followed(long_run, cursor=5, header=len(await stack.events(long_run)) - 1)
    assert len(frames) == 1


async def test_a_finished_run_replays_quickly(stack: Stack, long_run: str) -> None:
    best = min([await _timed(stack, long_run) for _ in range(5)])
    assert best < 2.5  # generous: half a second on an idle machine


async def _timed(stack: Stack, run_id: str) -> float:
    began = time.monotonic()
    await stack.followed(run_id)
    return time.monotonic() - began


async def test_fifty_readers_of_a_live_run_get_the_same(stack: Stack) -> None:
    run_id = await stack.start(script({"repeat": {"count": 400, "everyMs": 2, "say": "tick {i}"}}))
    lists = await asyncio.gather(*(stack.followed(run_id, cursor=0) for _ in range(50)))
    stored = [event["cursor"] for event in await stack.check(run_id)]
    assert all(ids(frames) == stored for frames in lists)
    assert all(frames == lists[0] for frames in lists)


@pytest.mark.parametrize("joined_after", range(0, 12, 2))
async def test_a_reader_joining_at_any_moment_from_any_cursor_misses_nothing(stack: Stack, joined_after: int) -> None:
    run_id = await stack.start(script({"repeat": {"count": 12, "everyMs": 15, "say": "tick {i}"}}))
    seen: list[Frame] = []
    async with stack.stream(run_id) as frames:
        async for frame in frames:
            seen.append(frame)
            if len(seen) > joined_after:
                break
    joined = await asyncio.gather(*(stack.followed(run_id, cursor=cursor) for cursor in range(len(seen) + 1)))
    whole = await stack.followed(run_id)
    for cursor, rest in enumerate(joined):
        assert rest == whole[cursor:]


async def test_a_reader_that_never_reads_costs_others_nothing(stack: Stack) -> None:
    run_id = await stack.start(script({"repeat": {"count": 3000, "everyMs": 0, "say": "x" * 500}}))
    host, port = stack.facts["apiUrl"].removeprefix("http://").split(":")
    deaf = socket.create_connection((host, int(port)))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(
        f"GET /api/runs/{run_id}/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.facts['apiKey']}\r\n\r\n".encode()
    )
    try:
        frames = await stack.followed(run_id)
        assert ids(frames) == list(range(1, len(frames) + 1))
        assert (await stack.until(run_id))["status"] == "success"
    finally:
        deaf.close()


async def test_a_stream_stays_open_while_a_person_thinks(stack: Stack) -> None:
    run_id = await stack.start(script({"ask": {"prompt": "?"}}, {"say": "after"}))
    following = asyncio.ensure_future(stack.followed(run_id))
    question = await stack.question(run_id)
    assert not following.done()
    await stack.reply(run_id, question["questionId"], answer="go")
    assert (await following)[-1].event == b"run.status"
    await stack.check(run_id)


async def test_pages_of_events_are_ranges(stack: Stack, long_run: str) -> None:
    page = (await stack.client.get(f"/api/runs/{long_run}/events", params={"after": 10, "before": 14})).json()
    assert [item["cursor"] for item in page["items"]] == [11, 12, 13]
    assert page["nextCursor"] is None
    page = (await stack.client.get(f"/api/runs/{long_run}/events", params={"after": 10, "limit": 2})).json()
    assert page["nextCursor"] == "12"
