"""A start into a session whose run is not over: it waits, is refused, or takes its place."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from control_plane.runs.create import CreateRun
from control_plane.runs.interrupt import InterruptSession
from control_plane.storage.apps import AppStore
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.pool import make_pool
from control_plane.storage.runs import RunStore
from shared.contracts.providers import Provider
from shared.contracts.runs import OnSessionBusy, StartRun
from shared.ids import random_id
from shared.web import Caller
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeManager

SESSION = {"sessionId": "s"}


async def ask(replica: Replica, on_busy: str, **more: Any) -> httpx.Response:
    headers = {"idempotency-key": more.pop("key")} if "key" in more else {}
    body = {"provider": "scripted", "prompt": "hi", **SESSION, "onSessionBusy": on_busy, **more}
    return await replica.http.post("/api/runs/start", json=body, headers=headers)


async def test_a_start_waits_for_the_run_before_it_unless_it_says_otherwise(replica: Replica, manager: FakeManager) -> None:
    first, second = await replica.start(**SESSION), (await ask(replica, "queue")).json()["runId"]
    attempt = await manager.begun(first)
    assert (await replica.show(second))["status"] == "queued"
    attempt.end()
    (await manager.begun(second)).end()
    await replica.until(second, "success")


async def test_who_rejects_a_busy_session_changes_nothing(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    first = await replica.start(**SESSION)
    attempt = await manager.begun(first)
    await replica.until(first, "running")
    answer = await ask(replica, "reject", key="k")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["runId"], problem["sessionId"]) == (409, "session_busy", first, "s")
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == 1
    assert await stores.pool.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    attempt.end()
    await replica.until(first, "success")
    second = await ask(replica, "reject", key="k")
    assert second.status_code == 202
    assert (await ask(replica, "reject", key="k")).json() == second.json()  # the same start again is no other run
    (await manager.begun(second.json()["runId"])).end()


@pytest.mark.parametrize("request_", [{"sessionId": "other"}, {"sessionId": None}])
async def test_other_sessions_are_not_busy(replica: Replica, manager: FakeManager, request_: dict[str, Any]) -> None:
    first = await replica.start(**SESSION)
    await manager.begun(first)
    assert (await ask(replica, "reject", **request_)).status_code == 202


async def test_of_many_that_reject_one_gets_an_idle_session(database: str, manager: FakeManager, manager_url: str) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        answers = await asyncio.gather(*(ask(replica, "reject") for replica in (one, two) * 10))
        assert sorted(each.status_code for each in answers) == [202, *[409] * 19]
        [winner] = [each.json()["runId"] for each in answers if each.status_code == 202]
        assert {each.json()["runId"] for each in answers} == {winner}


async def test_an_interrupt_ends_the_living_run_and_says_by_whom_and_the_new_one_follows(
    replica: Replica, manager: FakeManager
) -> None:
    first, waiting = await replica.start(**SESSION), await replica.start(**SESSION)
    attempt = await manager.begun(first)
    await replica.until(first, "running")
    newest = (await ask(replica, "interrupt")).json()["runId"]
    for run_id in (first, waiting):
        shown = await replica.until(run_id, "canceled")
        assert shown["errorCode"] == "user_canceled"
        assert shown["errorMessage"] == f"interrupted by {newest}, a later run in its workspace"
    assert attempt.stops >= 1
    assert manager.attempts(waiting) == []
    (await manager.begun(newest)).end()
    await replica.until(newest, "success")


async def test_a_run_that_finishes_first_is_a_success_all_the_same(replica: Replica, manager: FakeManager) -> None:
    first = await replica.start(**SESSION)
    attempt = await manager.begun(first)
    await replica.until(first, "running")
    attempt.end()
    newest = (await ask(replica, "interrupt")).json()["runId"]
    assert (await replica.until(first, "success", "canceled"))["status"] == "success"
    (await manager.begun(newest)).end()
    await replica.until(newest, "success")


async def test_an_interrupt_does_not_wait_for_a_person(replica: Replica, manager: FakeManager) -> None:
    first = await replica.start(**SESSION)
    (await manager.begun(first)).ask()
    await replica.until(first, "waiting_user")
    newest = (await ask(replica, "interrupt")).json()["runId"]
    await replica.until(first, "canceled")
    (await manager.begun(newest)).end()
    await replica.until(newest, "success")


async def test_of_several_interrupts_the_last_one_remains(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        await one.start(**SESSION)
        answers = await asyncio.gather(*(ask(replica, "interrupt") for replica in (one, two) * 4))
        run_ids = [each.json()["runId"] for each in answers]
        left: list[str] = []
        async with asyncio.timeout(30):
            while len(left) != 1:
                await asyncio.sleep(0.05)  # polling a condition with a bound
                left = [run_id for run_id in run_ids if (await one.show(run_id))["status"] != "canceled"]
        [last] = left
        newest = await stores.pool.fetchval("SELECT id FROM agent_runs ORDER BY created_at DESC, id DESC LIMIT 1")
        assert last == newest
        (await manager.begun(last)).end()
        await two.until(last, "success")


async def test_an_interrupt_whose_maker_died_is_carried_out_by_the_sweeper(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url) as replica:
        first = await replica.start(**SESSION)
        await manager.begun(first)
        await replica.until(first, "running")
        made = await stores.runs.create(new_run("run_late", session_id="s"), None)
        await stores.pool.execute("UPDATE agent_runs SET interrupts = true WHERE id = $1", made)
        await replica.until(first, "canceled")
        (await manager.begun(made)).end()
        await replica.until(made, "success")


async def test_a_start_that_stands_is_told_so_though_its_interrupt_fails(database: str, stores: Stores) -> None:
    async with make_pool(database) as gone:
        pass
    create = CreateRun(
        stores.runs, AppStore(stores.pool), BreakerStore(stores.pool), InterruptSession(RunStore(gone), stores.log), random_id,
        Provider.SCRIPTED, frozenset(Provider), 10,
    )  # fmt: skip
    first = await stores.runs.create(new_run(session_id="s"), None)
    request = StartRun(prompt="hi", session_id="s", on_session_busy=OnSessionBusy.INTERRUPT)
    made = await create(request, Caller(admin=True))
    assert await stores.runs.interrupted(None) == [(first, made)]  # a sweeper finds it


async def test_who_stopped_first_is_named(replica: Replica, manager: FakeManager) -> None:
    first = await replica.start(**SESSION)
    attempt = await manager.begun(first)
    await replica.until(first, "running")
    await replica.stop(first)
    newest = (await ask(replica, "interrupt")).json()["runId"]
    shown = await replica.until(first, "canceled")
    assert "interrupted" not in shown["errorMessage"]
    await until(lambda: attempt.stops >= 1)
    (await manager.begun(newest)).end()
    await replica.until(newest, "success")


async def test_a_run_that_waited_for_its_session_goes_on_where_the_session_stands_then(
    replica: Replica, manager: FakeManager
) -> None:
    first, second, third = [await replica.start(**SESSION) for _ in range(3)]  # created before any engine told of its session
    for number, run_id in enumerate((first, second)):
        attempt = await manager.begun(run_id)
        assert attempt.request.get("resumeSessionId") == (f"e-{number - 1}" if number else None)
        attempt.say("session.started", {"engineSession": f"e-{number}"})
        attempt.end()
    last = await manager.begun(third)
    assert last.request["resumeSessionId"] == "e-1"
    assert last.request["after"][0] == {"runId": second, "attempt": 1}
    last.end()
    await replica.until(third, "success")


async def test_a_run_that_waited_is_in_the_workspace_its_session_began_in(replica: Replica, manager: FakeManager) -> None:
    origin = await replica.start()
    attempt = await manager.begun(origin)
    attempt.say("session.started", {"engineSession": "e-0"})
    attempt.end()
    await replica.until(origin, "success")
    first, second = await replica.start(**SESSION, resumeRunId=origin), await replica.start(**SESSION)
    attempt = await manager.begun(first)
    attempt.say("session.started", {"engineSession": "e-1"})
    attempt.end()
    last = await manager.begun(second)
    assert (last.request["workspace"], last.request["resumeSessionId"]) == (attempt.request["workspace"], "e-1")
    assert manager.proposals[-1]["workspace"] == attempt.request["workspace"]
    last.end()
    await replica.until(second, "success")


@pytest.mark.parametrize("named", ["resumeRunId", "resumeSessionId"])
async def test_a_run_that_names_what_to_resume_keeps_to_it(replica: Replica, manager: FakeManager, named: str) -> None:
    origin = await replica.start(**SESSION)
    attempt = await manager.begun(origin)
    attempt.say("session.started", {"engineSession": "e-0"})
    attempt.end()
    await replica.until(origin, "success")
    first = await replica.start(**SESSION)
    second = await replica.start(**SESSION, **{named: origin if named == "resumeRunId" else "e-0"})
    attempt = await manager.begun(first)
    attempt.say("session.started", {"engineSession": "e-1"})
    attempt.end()
    last = await manager.begun(second)
    assert last.request["resumeSessionId"] == "e-0"
    last.end()
    await replica.until(second, "success")


async def test_a_run_of_another_provider_takes_no_engine_session_of_its_session(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    first = await replica.start(**SESSION)
    attempt = await manager.begun(first)
    second = await stores.runs.create(new_run("run_other", session_id="s", provider=Provider.CODEX_APP_SERVER), None)
    attempt.say("session.started", {"engineSession": "e-0"})
    attempt.end()
    last = await manager.begun(second)
    assert last.request.get("resumeSessionId") is None
    last.end()
    await replica.until(second, "success")
