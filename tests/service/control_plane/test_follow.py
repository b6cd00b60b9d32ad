"""Tails against a real database: whoever joins, whenever, from whatever cursor and at whatever pace, misses nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from control_plane.domain.news import FromExecutor
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease
from control_plane.runs import follow
from control_plane.runs.follow import Following, TailHub
from control_plane.storage.events import EventStore, StoredEvent
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.wakeups import announcement
from shared.errors import ErrorCode, RunyardError
from shared.sse import FrameReader, SentAway
from tests.loopback import until
from tests.service.control_plane.conftest import Stores, frame, running

BOUND_SECONDS = 30.0
ENDED = '{"outcome":"success","activeMs":1,"result":"done"}'
WINDOWS = [1, 3, 1, 2, 5, 1]  # how many events each commit brings; the last one brings the end too


class Jittery(EventStore):
    """Gives other tasks turns between its look at the table and its answer, and counts its looks."""

    def __init__(self, stores: Stores, seed: int = 0) -> None:
        super().__init__(stores.pool)
        self._random = random.Random(seed)
        self.looks = 0
        self.fail = 0
        self.hold: asyncio.Event | None = None

    async def page(self, run_id: str, after: int, limit: int, before: int = 2**62, max_bytes: int = 2**30) -> list[StoredEvent]:
        self.looks += 1
        if self.fail:
            self.fail -= 1
            raise RunyardError(ErrorCode.STORAGE_UNAVAILABLE, "as scripted")
        rows = await super().page(run_id, after, limit, before, max_bytes)
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        return rows


class Writer:
    """Writes a run's windows, at this replica or at another one, of which only announcements come here."""

    def __init__(self, stores: Stores, hub: TailHub, lease: Lease) -> None:
        self._lease = lease
        self._hub = hub
        self._here = RunLog(stores.pool, on_commit=[hub.committed])
        self._elsewhere = RunLog(stores.pool, on_commit=[self._announce])
        self._unheard = RunLog(stores.pool, on_commit=[lambda _: None])
        self._cursor = 0

    def _announce(self, changes: Any) -> None:
        for payload in announcement((change.run_id, change.last_cursor) for change in changes):
            self._hub.heard(payload)

    async def write(self, how: str, count: int, end: bool = False, text: str = "x") -> Change:
        news: list[FromExecutor] = []
        for _ in range(count):
            self._cursor += 1
            news.append(frame(self._cursor, data=f'{{"text":"{text}"}}'))
        if end:
            self._cursor += 1
            news.append(frame(self._cursor, "attempt.ended", ENDED))
        log = {"here": self._here, "elsewhere": self._elsewhere, "unheard": self._unheard}[how]
        [change] = await log.write([Write(self._lease.run_id, news, self._lease.token)])
        assert change is not None
        return change


async def read(following: Following, seen: list[int], pace: asyncio.Event | None = None) -> list[int]:
    """The ids of all frames to the end; ``pace``: not before it is set."""
    reader = FrameReader()
    try:
        if pace is not None:
            await pace.wait()
        while (block := await following.next(BOUND_SECONDS)) is not None:
            seen += [int(each.id) for each in reader.feed(block)]
            assert seen == sorted(set(seen)), "a reader sees every event once, in order"
    finally:
        await following.close()
    return seen


SIZES = {
    "as shipped": {},
    "small pages": {"PAGE": 2},
    "small rings": {"TAIL_EVENTS": 3},
    "rings of few bytes": {"TAIL_BYTES": 300},
    "no room at all": {"TAIL_BYTES": 1},
    "pages of few bytes": {"BLOCK_BYTES": 1, "TAIL_EVENTS": 2},
}
HOW: dict[str, Callable[[int], str]] = {
    "here": lambda _: "here",
    "elsewhere": lambda _: "elsewhere",
    "here and elsewhere by turns": lambda turn: ("here", "elsewhere")[turn % 2],
    "elsewhere and here by turns": lambda turn: ("elsewhere", "here")[turn % 2],
    "with hints that get lost": lambda turn: ("unheard", "here", "unheard", "elsewhere")[turn % 4],
    "without a single hint": lambda _: "unheard",
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("sizes", SIZES)
async def test_a_reader_joining_at_any_moment_from_any_cursor_misses_nothing(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, how: str, sizes: str
) -> None:
    for name, value in SIZES[sizes].items():
        monkeypatch.setattr(follow, name, value)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.02)
    lease = await stores.started()
    hub = TailHub(stores.runs, Jittery(stores, seed=len(how) * len(sizes)))
    writer = Writer(stores, hub, lease)
    over = asyncio.Event()
    readers: list[tuple[int, asyncio.Task[list[int]]]] = []
    last = 2

    async def join_from_everywhere() -> None:
        for cursor in range(last + 1):
            for pace in (None, over):
                following = hub.join(lease.run_id, cursor, last)
                readers.append((cursor, asyncio.ensure_future(read(following, [], pace))))
        await asyncio.sleep(0)

    async with asyncio.timeout(BOUND_SECONDS), running(hub.run()):
        for turn, count in enumerate(WINDOWS):
            await join_from_everywhere()
            change = await writer.write(HOW[how](turn), count, end=turn == len(WINDOWS) - 1)
            last = change.last_cursor
        over.set()
        for cursor, reader in readers:
            assert await reader == list(range(cursor + 1, last + 1))


@pytest.mark.parametrize("how", ["here", "elsewhere"])
async def test_a_hint_alone_brings_an_event_to_its_reader(stores: Stores, how: str) -> None:
    """Without the poll: nothing but the hint can have woken it."""
    lease = await stores.started()
    hub = TailHub(stores.runs, stores.events)
    following = hub.join(lease.run_id, 2, 2)
    waiting = asyncio.ensure_future(following.next(BOUND_SECONDS))
    await asyncio.sleep(0)
    await Writer(stores, hub, lease).write(how, 1)
    assert b"id: 3\n" in (await asyncio.wait_for(waiting, BOUND_SECONDS) or b"")


async def test_what_is_committed_during_a_look_at_the_table_is_not_lost(stores: Stores) -> None:
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    writer = Writer(stores, hub, lease)
    following = hub.join(lease.run_id, 2, 2)
    await writer.write("elsewhere", 1)
    events.hold = asyncio.Event()
    reading = asyncio.ensure_future(read(following, []))
    await until(lambda: events.looks == 1)
    await writer.write("here", 2)
    await writer.write("elsewhere", 1)
    await writer.write("here", 1, end=True)
    events.hold.set()
    assert await asyncio.wait_for(reading, BOUND_SECONDS) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_hint_that_comes_during_a_look_that_finds_nothing_is_not_lost(stores: Stores) -> None:
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    following = hub.join(lease.run_id, 2, 2)
    hub.heard(f"{lease.run_id} 3")  # too early
    events.hold = asyncio.Event()
    waiting = asyncio.ensure_future(following.next(BOUND_SECONDS))
    await until(lambda: events.looks == 1)
    await Writer(stores, hub, lease).write("elsewhere", 2)
    events.hold.set()
    assert b"id: 3\n" in (await asyncio.wait_for(waiting, BOUND_SECONDS) or b"")


async def test_a_wrong_hint_costs_one_look_and_hides_nothing(stores: Stores) -> None:
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    writer = Writer(stores, hub, lease)
    following = hub.join(lease.run_id, 2, 2)
    hub.heard(f"{lease.run_id} 1000\nrun_unknown 5\n{lease.run_id} x\n")
    assert await following.next(0.05) == b""
    assert events.looks == 1
    reading = asyncio.ensure_future(read(following, []))
    await writer.write("elsewhere", 1)
    await writer.write("here", 1, end=True)
    assert await asyncio.wait_for(reading, BOUND_SECONDS) == [3, 4, 5, 6]


async def test_readers_at_the_head_of_a_run_written_here_never_ask_the_table(stores: Stores) -> None:
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    writer = Writer(stores, hub, lease)
    readers = [asyncio.ensure_future(read(hub.join(lease.run_id, 2, 2), [])) for _ in range(20)]
    await asyncio.sleep(0)
    for _ in range(10):
        await writer.write("here", 3)
    await writer.write("here", 1, end=True)
    assert [await each for each in readers] == [list(range(3, 36))] * 20
    assert events.looks == 0


async def test_a_slow_reader_costs_the_table_and_nobody_else(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "TAIL_EVENTS", 4)
    lease = await stores.started()
    hub = TailHub(stores.runs, stores.events)
    writer = Writer(stores, hub, lease)
    slow, quick = hub.join(lease.run_id, 0, 2), hub.join(lease.run_id, 2, 2)
    reading = asyncio.ensure_future(read(quick, []))
    for _ in range(10):
        await writer.write("here", 2)
    await writer.write("here", 1, end=True)
    assert await reading == list(range(3, 26))
    assert await read(slow, []) == list(range(1, 26))


async def test_nothing_new_is_a_heartbeat_and_no_end(stores: Stores) -> None:
    lease = await stores.started()
    following = TailHub(stores.runs, stores.events).join(lease.run_id, 2, 2)
    assert [await following.next(0.01) for _ in range(3)] == [b"", b"", b""]


async def test_only_a_terminal_status_of_ours_ends_a_stream(stores: Stores) -> None:
    lease = await stores.started()
    hub = TailHub(stores.runs, stores.events)
    writer = Writer(stores, hub, lease)
    following = hub.join(lease.run_id, 2, 2)
    [change] = await RunLog(stores.pool, on_commit=[hub.committed]).write([
        Write(lease.run_id, [frame(1, data='{"status":"success"}')], lease.token)
    ])  # fmt: skip
    assert change is not None
    assert b"success" in (await following.next(1) or b"")
    assert await following.next(0.01) == b""
    writer._cursor = 1
    await writer.write("here", 1, end=True)
    assert await read(following, []) == [4, 5, 6]


async def test_a_stream_outlives_a_database_that_is_away(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.01)
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    following = hub.join(lease.run_id, 0, 2)
    events.fail = 3
    assert [await following.next(0.01) for _ in range(3)] == [b"", b"", b""]
    await Writer(stores, hub, lease).write("elsewhere", 3, end=True)
    assert await read(following, []) == [1, 2, 3, 4, 5, 6, 7]


async def test_readers_that_have_left_leave_nothing_behind(stores: Stores) -> None:
    lease = await stores.started()
    hub = TailHub(stores.runs, stores.events)
    one, two = hub.join(lease.run_id, 0, 2), hub.join(lease.run_id, 1, 2)
    await one.close()
    await one.close()
    assert list(hub._tails) == [lease.run_id]
    await two.close()
    assert hub._tails == {}


@pytest.mark.parametrize("moment", ["waiting", "looking"])
async def test_a_process_that_ends_sends_its_readers_away_at_once(stores: Stores, moment: str) -> None:
    lease = await stores.started()
    events = Jittery(stores)
    hub = TailHub(stores.runs, events)
    following = hub.join(lease.run_id, 2, 2)
    if moment == "looking":
        events.hold = asyncio.Event()
        hub.heard(f"{lease.run_id} 3")
    reading = asyncio.ensure_future(following.next(3600))
    await until(lambda: bool(events.looks if moment == "looking" else following._waiter._future))
    hub.stop()
    if events.hold is not None:
        events.hold.set()
    with pytest.raises(SentAway):
        await asyncio.wait_for(reading, BOUND_SECONDS)


async def test_pages_have_a_size_in_bytes(stores: Stores) -> None:
    lease = await stores.started()
    writer = Writer(stores, TailHub(stores.runs, stores.events), lease)
    for _ in range(5):
        await writer.write("unheard", 1, text="x" * 1000)
    assert [each.cursor for each in await stores.events.page(lease.run_id, 2, 100, max_bytes=2500)] == [3, 4, 5]
    assert [each.cursor for each in await stores.events.page(lease.run_id, 2, 100, max_bytes=1)] == [3]
