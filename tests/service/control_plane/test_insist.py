"""A run that is to stop, at an executor that answers and does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from control_plane.domain.news import Stop
from control_plane.storage.run_log import Write
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import QUICK, Replica, Stores, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager, refuse

SOON = replace(QUICK, stop=1.2)
PATIENT = replace(SOON, call=15.0)  # it ends nothing over its executor's head before a slow machine has looked


@pytest.fixture
async def patient(database: str, manager_url: str) -> AsyncIterator[Replica]:
    async with replica_at(database, manager_url, bounds=PATIENT) as made:
        yield made


@pytest.fixture
async def insisting(database: str, manager_url: str) -> AsyncIterator[Replica]:
    async with replica_at(database, manager_url, bounds=SOON) as made:
        yield made


async def _stays(replica: Replica, manager: FakeManager) -> tuple[str, FakeAttempt]:
    """A running attempt that no stop ends, and whose leash has been renewed."""
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.stays = True
    await replica.until(run_id, "running")
    await until(lambda: any(_renewed(each, run_id) for each in manager.executors.values()))
    return run_id, attempt


def _renewed(executor: FakeExecutor, run_id: str) -> list[int]:
    """When its leash was renewed, by its executor's clock in milliseconds."""
    return [each["readMs"] for each in executor.renewals if {"runId": run_id, "attempt": 1} in each["attempts"]]


async def _told(replica: Replica, run_id: str) -> list[dict[str, Any]]:
    return [each for each in await replica.events(run_id) if each["data"].get("code") == "end_not_confirmed"]


async def test_a_stop_that_its_executor_never_carries_out_ends_the_run_within_a_bound(
    database: str, manager: FakeManager, manager_url: str, insisting: Replica
) -> None:
    """And once, at however many replicas; nothing said afterwards counts, and no other attempt follows."""
    async with replica_at(database, manager_url, bounds=SOON) as other:
        run_id, attempt = await _stays(insisting, manager)
        owner = next(each for each in manager.executors.values() if each.attempts)
        await other.stop(run_id)
        shown = await insisting.until(run_id, "canceled")
        assert shown["errorCode"] == "user_canceled"
        assert owner.clock_ms() - max(_renewed(owner, run_id)) > SOON.leash / 2 * 1000  # else it would be 300 ms
        assert attempt.stops >= 2
        before = await insisting.events(run_id)
        attempt.say("message.completed", {"text": "still here"})
        attempt.end()
        other_run = await other.start()
        (await manager.begun(other_run)).end()
        await other.until(other_run, "success")
        assert await insisting.events(run_id) == before
    assert [each["data"]["status"] for each in before if each["kind"] == "run.status"][-2:] == ["stopping", "canceled"]
    assert len(await _told(insisting, run_id)) == 1
    assert len(manager.attempts(run_id)) == 1


async def test_an_attempt_that_ends_when_its_leash_is_let_lapse_tells_its_own_end(patient: Replica, manager: FakeManager) -> None:
    run_id, attempt = await _stays(patient, manager)
    owner = next(each for each in manager.executors.values() if each.attempts)
    await patient.stop(run_id)
    async with asyncio.timeout(20):
        while owner.clock_ms() - max(_renewed(owner, run_id)) < 1000:  # three renewals would have come
            await asyncio.sleep(0.02)  # polling a condition with a bound
    attempt.end(outcome="lost", errorCode="executor_lost", errorMessage="nobody renewed the leash", result=None)
    await patient.until(run_id, "canceled")
    assert await _told(patient, run_id) == []


async def test_a_stop_of_long_ago_is_told_before_it_is_judged(patient: Replica, manager: FakeManager, stores: Stores) -> None:
    """As after an outage: its executor may have heard of it for the first time, and what it finished counts."""
    run_id, attempt = await _stays(patient, manager)
    await patient.stop(run_id)
    await stores.pool.execute("UPDATE agent_runs SET stop_requested_at = now() - interval '1 hour' WHERE id = $1", run_id)
    told = manager.calls["show"]
    await until(lambda: manager.calls["show"] > told + 3)
    assert (await patient.show(run_id))["status"] == "stopping"
    attempt.end()
    await patient.until(run_id, "success")
    assert await _told(patient, run_id) == []


async def test_an_executor_that_does_not_answer_is_not_judged_but_waited_for(insisting: Replica, manager: FakeManager) -> None:
    """Its silence is counted by the run's driver, who knows when it was heard last."""
    run_id, attempt = await _stays(insisting, manager)
    manager.moods["show"] += [refuse(ErrorCode.PROVIDER_UNAVAILABLE)] * 1000
    await insisting.stop(run_id)
    asked = manager.calls["show"]
    await until(lambda: manager.calls["show"] > asked + int(SOON.lost_after / SOON.sweep_every) + 3)
    assert (await insisting.show(run_id))["status"] == "stopping"
    attempt.end()
    await insisting.until(run_id, "success")


async def test_a_run_that_is_to_stop_and_has_no_attempt_ends_though_nobody_drives_it(
    database: str, manager_url: str, stores: Stores
) -> None:
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 3600)
    await stores.log.write([Write(run_id, [Stop()], lease.token)])
    await stores.pool.execute("UPDATE agent_runs SET stop_requested_at = now() - interval '1 hour'")
    async with replica_at(database, manager_url, bounds=SOON) as replica:
        await replica.until(run_id, "canceled")
        assert await _told(replica, run_id) == []
