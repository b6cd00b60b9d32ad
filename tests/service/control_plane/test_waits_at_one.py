"""Runs that go on with files which one executor alone has wait for it in the line, ask it seldom, and are not overtaken there."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.domain.line import FIRST_ASKS_AGAIN_SECONDS, LAST_LOOKS_AGAIN_SECONDS, looks_again_in
from control_plane.domain.run import Lease
from tests.service.control_plane.conftest import PLACE, Replica, Stores, new_run, soon
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager

WAITING = "SELECT count(*) >= $1 FROM run_heads WHERE waits_at = 'one' AND lease_token IS NULL"


async def session(replica: Replica, manager: FakeManager, name: str) -> None:
    """Its files and its engine session are at the executor ``one``."""
    run_id = await replica.start(sessionId=name)
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": f"engine-{name}"})
    attempt.end()
    await replica.until(run_id, "success")


async def until_waiting(stores: Stores, count: int) -> None:
    await soon(lambda: stores.pool.fetchval(WAITING, count))


@pytest.fixture
async def full(replica: Replica, manager: FakeManager) -> FakeAttempt:
    """The only executor has one slot, which is taken, and the files of two sessions."""
    del manager.executors["two"]
    for name in ("a", "b"):
        await session(replica, manager, name)
    manager.executors["one"].slots = 1
    return await manager.begun(await replica.start())


async def test_of_runs_that_wait_for_one_full_executor_the_older_one_gets_its_slot(
    replica: Replica, manager: FakeManager, stores: Stores, full: FakeAttempt
) -> None:
    older = await replica.start(sessionId="a")
    await until_waiting(stores, 1)
    younger, stranger = await replica.start(sessionId="b"), await replica.start()
    await until_waiting(stores, 2)
    starts = manager.calls["start"]
    line = [older, younger, stranger]
    full.end()
    for place, run_id in enumerate(line):
        attempt = await manager.begun(run_id)
        assert [each for each in line[place + 1 :] if manager.attempts(each)] == []
        attempt.end()
    for run_id in line:
        assert (await replica.until(run_id, "success"))["attempt"] == 1
    assert manager.calls["start"] - starts == len(line), "no start was refused"


async def test_a_run_that_waits_for_one_executor_writes_no_attempt_and_only_the_first_one_asks(
    replica: Replica, manager: FakeManager, stores: Stores, full: FakeAttempt
) -> None:
    first = await replica.start(sessionId="a")
    await until_waiting(stores, 1)
    before = len(manager.proposals)
    second = await replica.start(sessionId="b")
    await until_waiting(stores, 2)
    manager.executors["two"] = FakeExecutor("two")
    stranger = await manager.begun(await replica.start())
    assert (stranger.run_id, 1) in manager.executors["two"].attempts
    assert [(await replica.show(run_id))["attempt"] for run_id in (first, second)] == [0, 0]
    theirs = (await stores.runs.driven(second)).workspace_key
    assert theirs not in [each["workspace"]["key"] for each in manager.proposals[before:]]
    full.end()
    assert (await manager.begun(first)).number == 1


async def test_a_run_without_a_session_of_its_engine_does_not_wait_for_the_files_before_it(
    replica: Replica, manager: FakeManager
) -> None:
    del manager.executors["two"]
    begun = await manager.begun(before := await replica.start(sessionId="a"))
    begun.say("message.completed", {"text": "hi"})
    begun.end()
    await replica.until(before, "success")
    manager.executors["one"].slots = 0
    manager.executors["two"] = FakeExecutor("two")
    after = await manager.begun(await replica.start(sessionId="a"))
    assert (after.run_id, 1) in manager.executors["two"].attempts


async def waits_at(stores: Stores, executor_id: str, **run: Any) -> Lease:
    made = await stores.runs.create(new_run(**run), None)
    lease = next(lease for lease in await stores.runs.claim(100, 60) if lease.run_id == made)
    await stores.runs.let_go(lease, 0, executor_id)
    return lease


async def test_who_is_behind_in_the_line_knows_what_is_waited_for(stores: Stores) -> None:
    first, urgent = await waits_at(stores, "one"), await waits_at(stores, "two", priority=50)
    last = await stores.runs.create(new_run(), None)
    awaited = [sorted((await stores.runs.driven(run_id)).awaited) for run_id in (urgent.run_id, first.run_id, last)]
    assert awaited == [[], ["two"], ["one", "two"]]
    for lease in await stores.runs.claim(100, 60):
        if lease.run_id == urgent.run_id:
            await stores.runs.next_attempt(lease, PLACE)
    assert (await stores.runs.driven(last)).awaited == ("one",)


async def test_a_run_that_nobody_claims_keeps_no_executor_from_others(stores: Stores) -> None:
    """Whatever keeps it back: a cap, a driver that died."""
    await waits_at(stores, "one")
    last = await stores.runs.create(new_run(), None)
    assert (await stores.runs.driven(last)).awaited == ("one",)
    await stores.pool.execute("UPDATE run_heads SET claim_after = now() - interval '4 seconds'")
    assert (await stores.runs.driven(last)).awaited == ()


async def test_a_run_that_a_replica_of_an_earlier_release_has_placed_keeps_no_executor_from_others(stores: Stores) -> None:
    first = await waits_at(stores, "one")
    last = await stores.runs.create(new_run(), None)
    lease = next(lease for lease in await stores.runs.claim(100, 60) if lease.run_id == first.run_id)
    assert (await stores.runs.driven(last)).awaited == ("one",)
    assert await stores.runs.next_attempt(lease, PLACE) is not None
    await stores.pool.execute("UPDATE run_heads SET waits_at = 'one' WHERE run_id = $1", first.run_id)  # it knows no such column
    assert (await stores.runs.driven(last)).awaited == ()


def test_who_is_further_behind_looks_later_and_never_late() -> None:
    waits = [looks_again_in(before) for before in range(100)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (FIRST_ASKS_AGAIN_SECONDS, LAST_LOOKS_AGAIN_SECONDS)
