"""The line of waiting runs: priority, how waiting makes a run rise, and what a run is told of its place and its wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.line import MOST_RISE, Ageing, Caps
from control_plane.domain.news import Move, Stop
from control_plane.storage.run_log import Write
from control_plane.storage.runs import RunStore
from shared.contracts.events import AttemptLost
from shared.contracts.providers import Provider
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import Replica, Stores, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeManager, refuse

MINUTE = Ageing(60.0)


async def queue(stores: Stores, *waiting: tuple[int, float], **more: Any) -> list[str]:
    """Queued runs, each of a priority and of so many minutes of waiting."""
    made: list[str] = []
    for priority, minutes in waiting:
        made.append(await stores.runs.create(new_run(priority=priority, **more), None))
        await stores.pool.execute(
            "UPDATE agent_runs SET created_at = now() - make_interval(secs => $2) WHERE id = $1", made[-1], minutes * 60.0
        )
    return made


async def order(runs: RunStore, count: int) -> list[str]:
    return [(await runs.claim(1, 60))[0].run_id for _ in range(count)]


@pytest.mark.parametrize(("waiting", "first"), [
    ([(0, 1), (5, 0)], 1),
    ([(0, 6), (5, 0)], 0),
    ([(0, 4), (5, 2)], 1),
    ([(-100, 10_000), (0, 0)], 1),
    ([(0, 10_000), (int(MOST_RISE) + 1, 0)], 1),
    ([(0, 10_000), (int(MOST_RISE) - 1, 0)], 0),
    ([(0, 9_000), (0, 10_000)], 1),
])  # fmt: skip
async def test_a_run_rises_while_it_waits_and_not_for_ever(stores: Stores, waiting: list[tuple[int, float]], first: int) -> None:
    made = await queue(stores, *waiting)
    runs = RunStore(stores.pool, ageing=MINUTE)
    shown = [await runs.snapshot(run_id) for run_id in made]
    assert [row.queue_position for row in shown if row is not None] == ([1, 2] if first == 0 else [2, 1])
    assert await order(runs, 2) == [made[first], made[1 - first]]


async def test_a_hurried_line_lets_runs_rise_sooner(stores: Stores) -> None:
    made = await queue(stores, (0, 1), (5, 0))
    assert await order(RunStore(stores.pool, ageing=Ageing(10.0)), 2) == made


async def test_several_dispatchers_take_the_line_in_its_order(stores: Stores, another_replica: Callable[[], Stores]) -> None:
    made = await queue(stores, *[(number % 7, 20 - number) for number in range(20)])
    replicas = [stores.runs, another_replica().runs]
    places = {run_id: row.queue_position for run_id in made if (row := await stores.runs.snapshot(run_id)) is not None}
    taken: list[str] = []
    while len(taken) < len(made):
        leases = await asyncio.gather(*(runs.claim(2, 60) for runs in replicas))
        batch = [lease.run_id for each in leases for lease in each]
        assert {places[run_id] for run_id in batch} == set(range(len(taken) + 1, len(taken) + len(batch) + 1))
        taken += batch


async def test_an_expected_wait_is_the_place_times_the_pace_of_the_provider(stores: Stores) -> None:
    for number in range(4):
        lease = await stores.started(f"begun_{number}")
        await stores.pool.execute(
            "UPDATE agent_runs SET started_at = now() - make_interval(secs => $2) WHERE id = $1", lease.run_id, number * 10.0
        )
    [_, second] = await queue(stores, (0, 2), (0, 1))
    [other] = await queue(stores, (0, 3), provider=Provider.CODEX_APP_SERVER)
    row, stranger = await stores.runs.snapshot(second), await stores.runs.snapshot(other)
    assert row is not None
    assert stranger is not None
    assert (row.status, row.queue_position, stranger.queue_position) == (RunStatus.QUEUED, 3, 1)
    assert row.expected_wait_ms is not None
    assert 15_000 <= row.expected_wait_ms < 25_000  # four began within 30 s and a little; two of this provider wait
    assert stranger.expected_wait_ms is None  # none of its provider began lately
    running = await stores.runs.snapshot("begun_0")
    assert running is not None
    assert (running.queue_position, running.expected_wait_ms) == (None, None)


async def test_old_starts_tell_nothing_of_the_wait(stores: Stores) -> None:
    for number in range(4):
        await stores.started(f"begun_{number}")
    await stores.pool.execute("UPDATE agent_runs SET started_at = now() - interval '1 hour'")
    [waiting] = await queue(stores, (0, 1))
    row = await stores.runs.snapshot(waiting)
    assert row is not None
    assert row.expected_wait_ms is None


async def test_no_wait_is_expected_of_a_run_that_another_one_keeps_back(stores: Stores) -> None:
    for number in range(4):
        await stores.started(f"begun_{number}")
    first, second = [await stores.runs.create(new_run(session_id="s"), None) for _ in range(2)]
    rows = [await stores.runs.snapshot(run_id) for run_id in (first, second)]
    assert [row is not None and row.expected_wait_ms is not None for row in rows] == [True, False]
    await stores.log.write([Write(first, [Stop()])])
    row = await stores.runs.snapshot(second)
    assert row is not None
    assert row.expected_wait_ms is not None


async def test_who_comes_to_a_full_line_is_told_to_come_again(database: str, manager: FakeManager, manager_url: str) -> None:
    for executor in manager.executors.values():
        executor.gone = True  # so nobody leaves the line
    async with replica_at(database, manager_url, queue_limit=2) as replica:
        for _ in range(2):
            await replica.start()
        refused = await replica.http.post("/api/runs/start", json={"provider": "scripted", "prompt": "hi"})
        assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (429, "queue_full", True)
        assert int(refused.headers["retry-after"]) > 0


async def test_a_run_that_waited_in_vain_says_for_what(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    """Not that it took longer than allowed: it never worked."""
    manager.moods["propose"] += [refuse(ErrorCode.QUEUE_FULL, sent=False)] * 1000
    run_id = await replica.start()
    await stores.pool.execute("UPDATE agent_runs SET created_at = now() - interval '2 days'")
    shown = await replica.until(run_id, "timeout")
    assert (shown["errorCode"], shown["errorMessage"]) == ("timeout", "it waited 86400 s for an executor")


@pytest.mark.parametrize("caps", [Caps.told("", ""), Caps.told("", "scripted=1"), Caps.told("*=9", "")])
async def test_while_a_provider_has_no_room_only_what_works_or_is_to_end_is_claimed(stores: Stores, caps: Caps) -> None:
    """What lost its attempt waits like all that have to be placed; whoever drove the others has gone."""
    names = ("works", "ends", "waits again")
    leases = {name: await stores.started(name) for name in names}
    lost = Move(Signal.ATTEMPT_LOST, event=AttemptLost(executor_id="executor-1", reason="gone", executor_cursor=0))
    await stores.log.write([Write("waits again", [lost], leases["waits again"].token)])
    await stores.log.write([Write("ends", [Stop()], None)])
    await stores.runs.create(new_run("new"), None)
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")
    await stores.pool.execute("UPDATE run_heads SET claim_after = now()")
    runs = RunStore(stores.pool, caps=caps)
    claimed = [lease.run_id for lease in await runs.claim(100, 60, closed=list(Provider))]
    assert sorted(claimed) == ["ends", "works"]
    later = sorted(lease.run_id for lease in await runs.claim(100, 60))
    assert later == (["waits again"] if caps.providers else ["new", "waits again"])
