"""Several replicas, and drivers that fail: every run is over, handed back, or somebody else's."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from control_plane.runs import attend, dispatch, room
from control_plane.runs.room import Room
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from shared.sse import FrameReader
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, replica_at, soon
from tests.service.control_plane.fake_manager import FakeManager, refuse


async def messages(replica: Replica, run_id: str) -> list[str]:
    return [each["data"]["text"] for each in await replica.events(run_id) if each["kind"] == "message.completed"]


async def test_a_replica_that_ends_hands_its_runs_over_at_once(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    """By its word, not by the lapse of its lease; and nobody starts anything anew."""
    async with replica_at(database, manager_url) as one:
        runs = [await one.start() for _ in range(5)]
        attempts = [await manager.begun(run_id) for run_id in runs]
        for run_id, attempt in zip(runs, attempts, strict=True):
            await one.until(run_id, "running")
            attempt.say("message.completed", {"messageId": "m", "text": "before"})
            await until_said(one, run_id, 1)
    assert await stores.pool.fetchval("SELECT count(*) FROM run_heads WHERE lease_token IS NULL") == 5
    async with replica_at(database, manager_url) as two:
        for run_id, attempt in zip(runs, attempts, strict=True):
            attempt.say("message.completed", {"messageId": "m2", "text": "after"})
            attempt.end()
            await two.until(run_id, "success")
            assert await messages(two, run_id) == ["before", "after"]
            assert manager.attempts(run_id) == [attempt]


async def until_said(replica: Replica, run_id: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await messages(replica, run_id)) < count:
            await asyncio.sleep(0.02)  # polling a condition with a bound


async def test_two_replicas_drive_each_run_once(database: str, manager: FakeManager, manager_url: str) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        runs = [await replica.start() for replica in (one, two) * 10]
        for run_id in runs:
            (await manager.begun(run_id)).end()
        for run_id in runs:
            await one.until(run_id, "success")
            assert len(manager.attempts(run_id)) == 1
    assert manager.calls["start"] == 20


async def test_a_run_whose_lease_was_taken_is_left_alone_and_goes_on(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    thief = "UPDATE run_heads SET lease_token = gen_random_uuid(), lease_until = now() + interval '1 second'"
    await stores.pool.execute(thief)
    for number in range(20):
        attempt.say("message.completed", {"messageId": "m", "text": str(number)})
        attempt.cut()
    attempt.end()
    await replica.until(run_id, "success")
    assert await messages(replica, run_id) == [str(number) for number in range(20)]
    events = await replica.events(run_id)
    assert [each["cursor"] for each in events] == list(range(1, len(events) + 1))
    assert manager.attempts(run_id) == [attempt]


async def test_a_driver_that_fails_again_and_again_ends_its_run_and_says_so(
    replica: Replica, manager: FakeManager, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CRASH_PAUSE_SECONDS", 0.05)
    for each in manager.executors.values():
        each.gone = True
    run_id = await replica.start()
    await stores.pool.execute("UPDATE run_requests SET request = '{\"prompt\": 7}' WHERE run_id = $1", run_id)
    for each in manager.executors.values():
        each.gone = False
    shown = await replica.until(run_id, "error")
    assert shown["errorCode"] == "internal"
    assert manager.attempts(run_id) == []
    other = await replica.start()
    (await manager.begun(other)).end()
    await replica.until(other, "success")


async def test_a_driver_that_failed_once_is_forgiven(
    replica: Replica, manager: FakeManager, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CRASH_PAUSE_SECONDS", 0.3)
    for each in manager.executors.values():
        each.gone = True
    run_id = await replica.start()
    whole = await stores.pool.fetchval("SELECT request FROM run_requests WHERE run_id = $1", run_id)
    await stores.pool.execute("UPDATE run_requests SET request = '{\"prompt\": 7}' WHERE run_id = $1", run_id)
    manager.executors["one"].gone = False
    await until(lambda: manager.calls["propose"] >= 1)
    await soon(lambda: stores.pool.fetchval("SELECT count(*) FROM attempts"))
    await stores.pool.execute("UPDATE run_requests SET request = $2::text::json WHERE run_id = $1", run_id, whole)
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")


async def test_an_executor_that_talks_nonsense_ends_its_run_alone(replica: Replica, manager: FakeManager) -> None:
    mad, sane = await replica.start(), await replica.start()
    (await manager.begun(mad)).say("interaction.requested", {"prompt": "without an id"})
    assert (await replica.until(mad, "error"))["errorCode"] == "internal"
    (await manager.begun(sane)).end()
    await replica.until(sane, "success")


async def test_a_replica_drives_no_more_than_it_may(database: str, manager: FakeManager, manager_url: str) -> None:
    async with replica_at(database, manager_url, drives=1) as replica:
        first, second = await replica.start(), await replica.start()
        attempt = await manager.begun(first)
        await replica.until(first, "running")
        assert (await replica.show(second))["queuePosition"] == 1
        assert manager.attempts(second) == []
        attempt.end()
        (await manager.begun(second)).end()
        await replica.until(second, "success")


async def test_a_session_waits_for_its_run_and_then_goes_on_without_being_looked_for(
    database: str, manager: FakeManager, manager_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 3600)
    async with replica_at(database, manager_url) as replica:
        first, second = await replica.start(sessionId="s"), await replica.start(sessionId="s")
        attempt = await manager.begun(first)
        await replica.until(first, "running")
        other = await replica.start()
        (await manager.begun(other)).end()  # who came after it has begun by now, had nothing kept it
        assert manager.attempts(second) == []
        attempt.say("session.started", {"engineSession": "e-1"})
        attempt.end()
        (await manager.begun(second)).end()
        await replica.until(second, "success")


async def test_a_frame_that_does_not_end_ends_its_run_and_is_not_held(
    replica: Replica, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attend, "FrameReader", partial(FrameReader, max_bytes=1000))
    monkeypatch.setattr(dispatch, "CRASH_PAUSE_SECONDS", 0)
    run_id = await replica.start()
    (await manager.begun(run_id)).say("message.completed", {"messageId": "m", "text": "x" * 3_000_000})
    assert (await replica.until(run_id, "error"))["errorCode"] == "internal"
    run_id = await replica.start()
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")


async def test_a_run_that_takes_too_long_is_stopped_by_the_sweeper(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    run_id = await replica.start()
    await manager.begun(run_id)
    await replica.until(run_id, "running")
    await soon(lambda: stores.pool.fetchval("SELECT active_ms_left FROM agent_runs WHERE id = $1", run_id))
    await stores.pool.execute("UPDATE agent_runs SET active_since = now() - interval '1 hour' WHERE id = $1", run_id)
    shown = await replica.until(run_id, "timeout")
    assert shown["errorCode"] == "timeout"
    assert manager.attempts(run_id)[0].stops >= 1


async def test_young_runs_do_not_overtake_those_that_wait_for_room(
    replica: Replica, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused a moment ago, the older ones keep their places; the younger would else take what frees while they rest."""
    monkeypatch.setattr(room, "FEW", 4)
    monkeypatch.setattr(dispatch, "CLAIM_AT_ONCE", 4)
    on_their_way = room.FEW + dispatch.CLAIM_AT_ONCE  # as many at most are being refused, or handed back, at one moment
    count, has_room = 2 * on_their_way, asyncio.Event()

    async def full(_manager: FakeManager, _executor: Any, _body: Any) -> None:
        if not has_room.is_set():
            raise RunyardError(ErrorCode.QUEUE_FULL, "as scripted", extra={"sent": False})

    manager.moods["propose"].extend([full] * 10_000)
    older = [await replica.start() for _ in range(count)]
    younger = [await replica.start() for _ in range(dispatch.CLAIM_AT_ONCE)]
    refused = manager.calls["propose"]
    await until(lambda: manager.calls["propose"] > refused + 2 * count)
    has_room.set()
    for run_id in (*older, *younger):
        await manager.begun(run_id)
    begun = [run_id for run_id, _number in manager.executors["one"].attempts]
    assert set(begun[: dispatch.CLAIM_AT_ONCE]) <= set(older)


async def test_runs_of_another_provider_do_not_wait_for_room(replica: Replica, manager: FakeManager) -> None:
    manager.moods["propose"].extend([refuse(ErrorCode.QUEUE_FULL)] * 2)
    waiting = await replica.start()
    await until(lambda: manager.calls["propose"] == 1)
    manager.moods["propose"].clear()
    other = await replica.start(provider="codex")
    assert (await manager.begun(other)).request["provider"] == "codex-app-server"
    await manager.begun(waiting)


def test_a_provider_is_closed_for_a_moment_only_and_saying_so_again_does_not_prolong_it() -> None:
    now = [0.0]
    place = Room(lambda: now[0])
    assert (place.closed(), place.next_opening()) == ([], None)
    place.none_for(Provider.SCRIPTED)
    now[0] = 0.2
    place.none_for(Provider.SCRIPTED)
    assert place.closed() == [Provider.SCRIPTED]
    assert place.next_opening() == pytest.approx(0.05)
    now[0] = 0.26
    assert (place.closed(), place.next_opening()) == ([], None)
