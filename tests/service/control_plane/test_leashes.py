"""Leashes over real HTTP: every executor by itself, and only with a reading that is worth something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from control_plane.manager_client import ManagerClient
from control_plane.runs.leashes import Leashes
from tests.loopback import until
from tests.service.control_plane.conftest import running
from tests.service.control_plane.fake_manager import FakeManager

EVERY_SECONDS = 0.05


@pytest.fixture
async def leashes(manager_url: str) -> AsyncIterator[Leashes]:
    client = ManagerClient([manager_url], None, 5.0)
    yield Leashes(client, EVERY_SECONDS, 5.0, 5.0)
    await client.close()


async def test_a_silent_executor_delays_no_other(leashes: Leashes, manager: FakeManager) -> None:
    one, two = manager.executors["one"], manager.executors["two"]
    await leashes.keep("one", "run_1", 1, renew_now=True)
    await leashes.keep("two", "run_2", 1, renew_now=True)
    one.deaf_to_renewals = True
    before = len(two.renewals)
    async with running(leashes.run()):
        await until(lambda: len(two.renewals) >= before + 20, within=4)


async def test_all_attempts_of_an_executor_are_renewed_by_one_call(leashes: Leashes, manager: FakeManager) -> None:
    one = manager.executors["one"]
    for number in range(3):
        await leashes.keep("one", f"run_{number}", 1, renew_now=True)
    leashes.drop("one", "run_1", 1)
    one.renewals.clear()
    async with running(leashes.run()):
        await until(lambda: len(one.renewals) >= 1)
    assert sorted(each["runId"] for each in one.renewals[0]["attempts"]) == ["run_0", "run_2"]


async def test_a_leash_is_renewed_with_a_fresh_reading_at_once(leashes: Leashes, manager: FakeManager) -> None:
    """Whoever takes over an attempt has little time left: a reading that renews nothing must not cost a whole turn."""
    one = manager.executors["one"]
    for stale in (None, (one.instance, one.clock_ms() - 60_000), ("another life", one.clock_ms())):
        if stale is not None:
            leashes.quoted("one", *stale)
        one.renewals.clear()
        await leashes.keep("one", "run_1", 1, renew_now=True)
        last = one.renewals[-1]
        assert last["quote"]["instance"] == one.instance
        assert last["readMs"] - last["quote"]["clockMs"] < 1000


async def test_drivers_that_attach_again_at_the_same_time_share_a_renewal(leashes: Leashes, manager: FakeManager) -> None:
    one = manager.executors["one"]
    await leashes.keep("one", "run_0", 1, renew_now=True)
    one.renewals.clear()
    await asyncio.gather(*(leashes.keep("one", f"run_{number}", 1, renew_now=True) for number in range(50)))
    assert len(one.renewals) <= 2
    assert len(one.renewals[-1]["attempts"]) == 50


async def test_starts_that_need_a_reading_at_the_same_time_share_it(leashes: Leashes, manager: FakeManager) -> None:
    readings = await asyncio.gather(*(leashes.reading("one") for _ in range(50)))
    assert None not in readings
    assert manager.calls["renew"] == 1


async def test_who_comes_while_a_renewal_is_under_way_is_in_the_next(leashes: Leashes, manager: FakeManager) -> None:
    one = manager.executors["one"]
    one.deaf_to_renewals = True
    first = asyncio.ensure_future(leashes.keep("one", "run_0", 1, renew_now=True))
    await until(lambda: manager.calls["renew"] == 1)
    second = asyncio.ensure_future(leashes.keep("one", "run_1", 1, renew_now=True))
    one.deaf_to_renewals = False
    one.hears_again.set()
    await asyncio.gather(first, second)
    assert [len(each["attempts"]) for each in one.renewals if each["attempts"]][-1] == 2


async def test_an_executor_with_much_to_do_may_take_longer_than_a_driver_waits(manager_url: str, manager: FakeManager) -> None:
    """A renewal that was given up, though its executor was only slow, has cost runs their attempts on full machines."""
    client, one = ManagerClient([manager_url], None, 5.0), manager.executors["one"]
    leashes = Leashes(client, EVERY_SECONDS, 0.05, 20.0)
    one.deaf_to_renewals = True
    async with running(leashes.run()):
        await leashes.keep("one", "run_1", 1, renew_now=True)
        assert one.renewals == []
        one.hears_again.set()
        await until(lambda: len(one.renewals) >= 1)
    assert leashes.quote("one") is not None
    await client.close()


async def test_a_reading_of_an_executor_with_much_to_do_is_waited_for(manager_url: str, manager: FakeManager) -> None:
    """Readings that were given up while they came have lost attempts whose executor «was silent»."""
    client, one = ManagerClient([manager_url], None, 5.0), manager.executors["one"]
    leashes = Leashes(client, EVERY_SECONDS, 0.05, 20.0)
    one.deaf_to_renewals = True
    reading = asyncio.ensure_future(leashes.reading("one"))
    done, _ = await asyncio.wait((reading,), timeout=0.3)
    assert not done
    one.hears_again.set()
    assert await reading is not None
    await client.close()


async def test_a_renewal_stands_behind_one_that_hangs_for_as_long_as_a_driver_waits(
    manager_url: str, manager: FakeManager
) -> None:
    client, one = ManagerClient([manager_url], None, 5.0), manager.executors["one"]
    leashes = Leashes(client, EVERY_SECONDS, 0.1, 20.0)
    one.deaf_to_renewals = True
    hanging = asyncio.ensure_future(leashes.reading("one"))
    await until(lambda: manager.calls["renew"] == 1)
    one.deaf_to_renewals = False
    assert await asyncio.wait_for(leashes.reading("one"), 10) is not None
    assert not hanging.done()
    one.hears_again.set()
    await hanging
    await client.close()


async def test_a_renewal_that_breaks_ends_the_loop_and_with_it_the_replica(
    leashes: Leashes, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leashes.keep("one", "run_1", 1, renew_now=True)

    async def broken(*_given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(leashes, "_ask", broken)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(leashes.run(), 10)


async def test_who_is_dropped_is_renewed_no_more(leashes: Leashes, manager: FakeManager) -> None:
    one, two = manager.executors["one"], manager.executors["two"]
    await leashes.keep("one", "run_1", 1, renew_now=True)
    await leashes.keep("two", "run_2", 1, renew_now=True)
    leashes.drop("one", "run_1", 1)
    leashes.drop("one", "run_1", 1)
    seen = len(one.renewals)
    async with running(leashes.run()):
        await until(lambda: len(two.renewals) >= 5)
    assert len(one.renewals) == seen


async def test_an_executor_that_cannot_be_reached_gives_no_reading(leashes: Leashes, manager: FakeManager) -> None:
    manager.executors["one"].gone = True
    assert await leashes.reading("one") is None
    assert await leashes.reading("two") is not None
