"""Hints between replicas: told after the commit, gathered, never back to the one who tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from control_plane.app import Loops
from control_plane.domain.news import Stop
from control_plane.storage import wakeups as wakeups_module
from control_plane.storage.pool import make_pool
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.runs import RunStore
from control_plane.storage.wakeups import Channel, Wakeups, heads_of
from tests.fault_proxy import faulty
from tests.loopback import until
from tests.service.control_plane.conftest import Stores, new_run
from tests.service.control_plane.test_hard_cases import place_of


class Replica:
    """One process's wakeups, and what each of its ears heard."""

    def __init__(self, database: str) -> None:
        self.wakeups = Wakeups(database)
        self.heard: dict[Channel, list[str]] = {channel: [] for channel in Channel}
        self.wakeups.hear({channel: self.heard[channel].append for channel in Channel})

    async def until(self, channel: Channel, payload: str) -> None:
        async with asyncio.timeout(20):
            while payload not in self.heard[channel]:
                await asyncio.sleep(0.01)  # polling a condition with a bound

    async def connected(self) -> None:
        await self.until(Channel.WORK, "")
        for heard in self.heard.values():
            heard.clear()


@pytest.fixture
async def pair(database: str) -> AsyncIterator[tuple[Replica, Replica]]:
    here, there = Replica(database), Replica(database)
    async with Loops({"here": here.wakeups.run, "there": there.wakeups.run}).running():
        await here.connected()
        await there.connected()
        yield here, there


async def test_a_hint_is_heard_at_once_by_the_teller_and_soon_by_the_others(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    here.wakeups.tell(Channel.INTENTS, "run_1")
    assert here.heard[Channel.INTENTS] == ["run_1"]
    await there.until(Channel.INTENTS, "run_1")


async def test_nobody_hears_its_own_hint_twice(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    here.wakeups.tell(Channel.WORK, "mine")
    await there.until(Channel.WORK, "mine")
    there.wakeups.tell(Channel.WORK, "answer")
    await here.until(Channel.WORK, "answer")  # sent after ours: were ours to come back, it would have come before
    assert here.heard[Channel.WORK] == ["mine", "answer"]


async def test_a_thousand_hints_that_work_waits_are_told_as_a_few(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    for _ in range(1_000):
        here.wakeups.tell(Channel.WORK, "")
    here.wakeups.tell(Channel.WORK, "last")
    await there.until(Channel.WORK, "last")
    assert there.heard[Channel.WORK] == ["", "last"]


async def test_a_run_is_told_of_only_when_others_can_see_it(database: str, pair: tuple[Replica, Replica], stores: Stores) -> None:
    here, there = pair
    seen: list[int] = []
    async with make_pool(database) as pool:
        runs = RunStore(pool, here.wakeups.tell)
        await runs.create(new_run("run_seen"), None)
        await there.until(Channel.WORK, "")
        seen = [len(await stores.runs.claim(10, 60))]
    assert seen == [1]


async def test_a_stop_and_how_far_its_run_has_come_are_told_after_their_commit(
    pair: tuple[Replica, Replica], stores: Stores
) -> None:
    here, there = pair
    lease = await stores.started("run_stopped")
    await RunLog(stores.pool, (here.wakeups.committed,)).write([Write(lease.run_id, [Stop()])])
    await there.until(Channel.INTENTS, "run_stopped")
    async with asyncio.timeout(20):
        while not there.heard[Channel.EVENTS]:
            await asyncio.sleep(0.01)  # polling a condition with a bound
    assert here.heard[Channel.INTENTS] == ["run_stopped"]
    assert dict(heads_of(there.heard[Channel.EVENTS][0])) == {
        "run_stopped": (await stores.runs.heads(["run_stopped"]))["run_stopped"]
    }


async def test_a_window_that_is_rolled_back_is_told_to_nobody(pair: tuple[Replica, Replica], stores: Stores) -> None:
    here, there = pair
    lease = await stores.started("run_held")
    log = RunLog(stores.pool, (here.wakeups.committed,))
    await stores.pool.execute("ALTER TABLE run_events ADD CONSTRAINT full_up CHECK (kind <> 'run.status') NOT VALID")
    with pytest.raises(Exception, match="full_up"):
        await log.write([Write(lease.run_id, [Stop()])])
    here.wakeups.tell(Channel.WORK, "after")
    await there.until(Channel.WORK, "after")
    assert there.heard[Channel.EVENTS] == there.heard[Channel.INTENTS] == []


async def test_replicas_whose_connections_were_killed_look_for_themselves_and_go_on(
    pair: tuple[Replica, Replica], stores: Stores
) -> None:
    here, there = pair
    theirs = "application_name = 'runyard-wakeups' AND datname = current_database()"
    assert await stores.pool.fetchval(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {theirs}") == 2
    await here.until(Channel.WORK, "")
    await there.until(Channel.WORK, "")
    here.wakeups.tell(Channel.INTENTS, "run_later")
    await there.until(Channel.INTENTS, "run_later")


async def test_what_waits_for_the_database_to_return_is_bounded(database: str) -> None:
    alone = Replica(database)
    for number in range(10_000):
        alone.wakeups.tell(Channel.INTENTS, f"run_{number}")
    assert len(alone.heard[Channel.INTENTS]) == 10_000
    assert len(alone.wakeups._gathered()) < 5_000  # pyright: ignore[reportPrivateUsage]


async def test_a_link_that_falls_silent_while_it_begins_to_listen_is_left_for_another(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups_module, "_ANSWER_SECONDS", 0.5)
    parts = urlsplit(database)
    with faulty(lambda: place_of(database)) as network:
        network.mute_after = (b"runyard_work",)
        replica = Replica(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{network.port}", query="").geturl())
        async with Loops({"here": replica.wakeups.run}).running():
            await until(lambda: network.connections >= 2)
            network.heal()
            await replica.connected()


async def test_a_link_whose_server_dies_while_it_is_made_is_left_for_another(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = asyncpg.connect, [asyncpg.InternalClientError("cannot switch to state 11"), ConnectionResetError()]

    async def dying(*given: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop(0)
        return await real(*given, **named)

    monkeypatch.setattr(wakeups_module.asyncpg, "connect", dying)
    monkeypatch.setattr(wakeups_module, "_RECONNECT_SECONDS", 0.01)
    replica = Replica(database)
    async with Loops({"here": replica.wakeups.run}).running():
        await replica.connected()
    assert failures == []
