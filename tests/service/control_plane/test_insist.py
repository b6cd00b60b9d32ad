"""A run that is to stop, at an executor that is there and does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from control_plane.domain.news import Stop
from control_plane.domain.run import Placement
from control_plane.manager_client import ManagerClient
from control_plane.runs.insist import InsistOnEnd
from control_plane.storage.run_log import Write
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import QUICK, Replica, Stores, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager, Mood, refuse

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
    manager.moods["show"] += [refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False)] * 1000
    await insisting.stop(run_id)
    asked = manager.calls["show"]
    await until(lambda: manager.calls["show"] > asked + int(SOON.lost_after / SOON.sweep_every) + 3)
    assert (await insisting.show(run_id))["status"] == "stopping"
    attempt.end()
    await insisting.until(run_id, "success")


async def _hang(_manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
    await asyncio.sleep(30)  # longer than anybody waits for it


@dataclass
class Judged:
    """A run that is to stop, driven by nobody, and one that insists on its end by a clock that only the test moves."""

    run_id: str
    stores: Stores
    manager: FakeManager
    time: float = 0.0

    async def looks(self, count: int = 2) -> None:
        seen = self.manager.calls["show"]
        await until(lambda: self.manager.calls["show"] >= seen + count)

    async def status(self) -> str:
        return (await self.stores.runs.driven(self.run_id)).status

    async def until_over(self) -> None:
        async with asyncio.timeout(10):
            while await self.status() != "canceled":
                await asyncio.sleep(0.02)  # polling a condition with a bound


@pytest.fixture
def patience() -> float:
    """For how many seconds an answer is waited for."""
    return 10.0


@pytest.fixture
async def judged(stores: Stores, manager: FakeManager, manager_url: str, patience: float) -> AsyncIterator[Judged]:
    bounds = replace(SOON, sweep_every=0.02, probe=patience)
    client = ManagerClient([manager_url], "service", patience)
    lease = await stores.started(place=Placement("one", "i1", "http://127.0.0.1:1"))
    manager.executors["one"].attempts[lease.run_id, 1] = FakeAttempt(lease.run_id, 1, request={}, stays=True)
    await stores.log.write([Write(lease.run_id, [Stop()], lease.token)])
    await stores.pool.execute("UPDATE agent_runs SET stop_requested_at = now() - interval '1 hour'")
    made = Judged(lease.run_id, stores, manager)
    insisting = asyncio.create_task(InsistOnEnd(stores.runs, stores.log, client, bounds, lambda: made.time).run())
    yield made
    insisting.cancel()
    await asyncio.wait([insisting])
    await client.close()


@pytest.mark.parametrize("patience", [0.1])
@pytest.mark.parametrize(
    ("verb", "mood"),
    [
        pytest.param("show", refuse(ErrorCode.INTERNAL), id="it fails to show it"),
        pytest.param("show", _hang, id="it never shows it"),
        pytest.param("stop", refuse(ErrorCode.INTERNAL), id="it fails to stop it"),
        pytest.param("stop", _hang, id="it never says that it stops it"),
    ],
)
async def test_a_stop_that_its_executor_answers_with_nothing_but_failures_ends_the_run_all_the_same(
    judged: Judged, manager: FakeManager, verb: str, mood: Mood
) -> None:
    manager.moods[verb] += [mood] * 1000
    await judged.looks()
    assert await judged.status() == "stopping"
    assert manager.calls["stop"] > 0
    judged.time = SOON.lost_after + SOON.call + 0.1
    await judged.until_over()


async def test_a_failure_on_the_way_gives_a_run_that_is_to_stop_no_further_time(judged: Judged, manager: FakeManager) -> None:
    await judged.looks()
    judged.time = SOON.lost_after
    manager.moods["show"] += [refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False), refuse(ErrorCode.INTERNAL)]
    await judged.looks(4)
    assert await judged.status() == "stopping"
    judged.time = SOON.lost_after + SOON.call + 0.1
    await judged.until_over()


@pytest.mark.parametrize("refusal", [refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False), refuse(ErrorCode.NOT_FOUND)])
async def test_an_executor_that_is_not_reached_or_does_not_have_it_is_left_to_the_driver(
    judged: Judged, manager: FakeManager, refusal: Mood
) -> None:
    manager.moods["show"] += [refusal] * 1000
    await judged.looks()
    judged.time = 3600.0
    await judged.looks(4)
    assert await judged.status() == "stopping"


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
