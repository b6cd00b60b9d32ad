"""One run at a time works in a workspace, whatever made two runs share it: a session, ``resumeRunId`` or ``resumeSessionId``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import asyncpg
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.line import Caps
from control_plane.domain.news import Move, News, Stop
from control_plane.domain.run import Lease
from control_plane.runs.interrupt import InterruptSession
from control_plane.storage.run_log import Write
from control_plane.storage.runs import RunStore
from shared.contracts.runs import OnSessionBusy
from shared.errors import ErrorCode, RunyardError
from tests.service.control_plane.conftest import PLACE, Replica, Stores, frame, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeManager
from tests.service.control_plane.test_races import OneConnection

RESUMES: dict[str, Any] = {"workspace_key": "w", "resume_session": "e-0", "resumes": True}
UNCAPPED, CAPPED = Caps(), Caps.told("", "*=100")
QUESTION = frame(1, "interaction.requested", '{"questionId":"q","type":"question","prompt":"?"}')
PARKS = frame(2, "attempt.ended", '{"outcome":"parked","activeMs":1}')
STOP = Stop(ErrorCode.USER_CANCELED)


# ---- the claim ----


async def claimed(runs: RunStore) -> list[str]:
    return sorted(lease.run_id for lease in await runs.claim(100, 60))


async def accepted(stores: Stores, lease: Lease) -> None:
    assert await stores.runs.next_attempt(lease, PLACE) == 1
    await stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])


async def over(stores: Stores, lease: Lease) -> None:
    await stores.log.write([Write(lease.run_id, [Move(Signal.GIVEN_UP, ErrorCode.INTERNAL)], lease.token)])


@pytest.mark.parametrize("caps", [UNCAPPED, CAPPED], ids=["uncapped", "capped"])
@pytest.mark.parametrize(
    ("status", "news"),
    [("running", []), ("waiting_user", [QUESTION]), ("waiting_user", [QUESTION, PARKS]), ("stopping", [STOP])],
    ids=["running", "waiting", "parked", "stopping"],
)
async def test_a_workspace_is_busy_until_the_run_before_is_over(
    stores: Stores, caps: Caps, status: str, news: list[News]
) -> None:
    runs = RunStore(stores.pool, caps=caps)
    first, second, third = [await stores.runs.create(new_run(**RESUMES), None) for _ in range(3)]
    other = await stores.runs.create(new_run(), None)
    leases = {lease.run_id: lease for lease in await runs.claim(100, 60)}
    assert set(leases) == {first, other}
    await accepted(stores, leases[first])
    await stores.log.write([Write(first, news, leases[first].token)])
    assert await stores.pool.fetchval("SELECT status::text FROM agent_runs WHERE id = $1", first) == status
    assert await claimed(runs) == []
    await stores.log.write([Write(first, [STOP])])
    await stores.log.write([Write(first, [Move(Signal.STOPPED)])])
    assert await claimed(runs) == [second]
    assert third not in await claimed(runs)


@pytest.mark.parametrize("caps", [UNCAPPED, CAPPED], ids=["uncapped", "capped"])
async def test_however_many_replicas_claim_at_once_a_workspace_has_one_driver(
    stores: Stores, another_replica: Callable[[], Stores], caps: Caps
) -> None:
    made = [await stores.runs.create(new_run(**RESUMES | {"workspace_key": f"w{number % 3}"}), None) for number in range(12)]
    stores_ = [RunStore(each.pool, caps=caps) for each in (stores, another_replica())]
    order: list[str] = []
    for _ in range(4):
        claims = await asyncio.gather(*(each.claim(100, 60) for each in stores_ for _ in range(4)))
        leases = [lease for each in claims for lease in each]
        assert len(leases) == 3
        order += [lease.run_id for lease in leases]
        for lease in leases:
            await over(stores, lease)
    for workspace in range(3):
        theirs = made[workspace::3]
        assert [run_id for run_id in order if run_id in theirs] == theirs


async def test_a_workspace_keeps_its_order_when_an_earlier_start_commits_later(stores: Stores, database: str) -> None:
    slow = await asyncpg.connect(database)
    try:
        async with slow.transaction():
            await Stores(cast(Any, OneConnection(slow))).runs.create(new_run("run_first", **RESUMES), None)
            second = asyncio.ensure_future(stores.runs.create(new_run("run_second", **RESUMES), None))
            other = await stores.runs.create(new_run("run_other", **RESUMES | {"workspace_key": "v"}), None)
            await asyncio.wait((second,), timeout=0.3)
            assert await claimed(stores.runs) == [other]
    finally:
        await slow.close()
    await second
    assert await claimed(stores.runs) == ["run_first"]


# ---- a session is one workspace ----


async def test_the_first_run_of_a_session_decides_its_workspace_though_two_are_first(stores: Stores, database: str) -> None:
    slow = await asyncpg.connect(database)
    try:
        async with slow.transaction():
            await Stores(cast(Any, OneConnection(slow))).runs.create(new_run("run_first", session_id="s", **RESUMES), None)
            second = asyncio.ensure_future(stores.runs.create(new_run("run_second", session_id="s"), None))
            await asyncio.wait((second,), timeout=0.3)
    finally:
        await slow.close()
    assert (await stores.runs.driven(await second)).workspace_key == "w"
    assert await claimed(stores.runs) == ["run_first"]


async def test_a_session_that_works_elsewhere_is_not_taken_to_another_workspace(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    origin = await with_session(replica, manager)
    first = await replica.start(sessionId="s")
    await manager.begun(first)
    request = {"provider": "scripted", "prompt": "hi", "sessionId": "s", "resumeRunId": origin}
    answer = await replica.http.post("/api/runs/start", json=request)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "sessionId" in answer.json()["detail"]
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == 2


async def test_two_sessions_that_share_a_workspace_take_turns(replica: Replica, manager: FakeManager) -> None:
    origin = await with_session(replica, manager, sessionId="s")
    branch = await replica.start(sessionId="t", resumeRunId=origin)
    attempt = await manager.begun(branch)
    trunk = await replica.start(sessionId="s")
    problem = await refused(replica, sessionId="s")
    assert (problem["runId"], problem["sessionId"]) == (branch, "s")
    attempt.end()
    last = await manager.begun(trunk)
    assert (last.request["workspace"], last.request["resumeSessionId"]) == (attempt.request["workspace"], "e-0")
    last.end()
    await replica.until(trunk, "success")


# ---- what a start does that names a run of a busy workspace ----


async def with_session(replica: Replica, manager: FakeManager, **request: Any) -> str:
    """A run that is over and left an engine session."""
    run_id = await replica.start(**request)
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-0"})
    attempt.end()
    await replica.until(run_id, "success")
    return run_id


async def living(replica: Replica, manager: FakeManager) -> tuple[str, FakeAttempt]:
    """A run without a ``sessionId`` that works in its engine session."""
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-0"})
    await replica.until_so(run_id, lambda shown: shown["resumeSessionId"] == "e-0")
    return run_id, attempt


async def refused(replica: Replica, **request: Any) -> dict[str, Any]:
    body = {"provider": "scripted", "prompt": "hi", "onSessionBusy": "reject", **request}
    answer = await replica.http.post("/api/runs/start", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "session_busy")
    return answer.json()


@pytest.mark.parametrize("named", ["resumeRunId", "resumeSessionId"])
async def test_who_goes_on_with_a_run_that_lives_waits_for_its_end(replica: Replica, manager: FakeManager, named: str) -> None:
    first, attempt = await living(replica, manager)
    second = await replica.start(**{named: first if named == "resumeRunId" else "e-0"})
    assert (await replica.show(second))["queuePosition"] == 1
    problem = await refused(replica, resumeRunId=first)
    assert (problem["runId"], "sessionId" in problem) == (first, False)
    assert manager.attempts(second) == []
    attempt.end()
    last = await manager.begun(second)
    assert (last.request["workspace"], last.request["resumeSessionId"]) == (attempt.request["workspace"], "e-0")
    assert (await replica.show(first))["status"] == "success"
    last.end()
    await replica.until(second, "success")


async def test_an_interrupt_takes_the_place_of_the_run_it_goes_on_with(replica: Replica, manager: FakeManager) -> None:
    first, attempt = await living(replica, manager)
    waiting = await replica.start(resumeRunId=first)
    newest = await replica.start(resumeRunId=first, onSessionBusy="interrupt")
    for run_id in (first, waiting):
        shown = await replica.until(run_id, "canceled")
        assert shown["errorMessage"] == f"interrupted by {newest}, a later run in its workspace"
    assert attempt.stops >= 1
    assert manager.attempts(waiting) == []
    (await manager.begun(newest)).end()
    await replica.until(newest, "success")


async def test_many_starts_at_two_replicas_that_name_one_run_are_driven_one_after_the_other(
    database: str, manager: FakeManager, manager_url: str
) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        origin = await with_session(one, manager)
        left = set(await asyncio.gather(*(replica.start(resumeRunId=origin) for replica in (one, two) * 3)))
        while left:
            begun = await asyncio.wait_for(next_begun(manager, left), 20)
            [run_id] = begun
            left.remove(run_id)
            (await manager.begun(run_id)).end()


async def next_begun(manager: FakeManager, runs: set[str]) -> set[str]:
    while not (begun := {run_id for run_id in runs if manager.attempts(run_id)}):
        await asyncio.sleep(0.01)  # polling a condition with a bound
    return begun


async def test_of_many_that_reject_one_gets_an_idle_workspace(database: str, manager: FakeManager, manager_url: str) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        origin = await with_session(one, manager)
        body = {"provider": "scripted", "prompt": "hi", "onSessionBusy": "reject", "resumeRunId": origin}
        answers = await asyncio.gather(*(each.http.post("/api/runs/start", json=body) for each in (one, two) * 5))
        assert sorted(each.status_code for each in answers) == [202, *[409] * 9]


@pytest.mark.parametrize(("app", "stops"), [("a", False), ("b", True), (None, True)])
async def test_an_app_interrupts_its_own_runs_only_and_an_operator_any(stores: Stores, app: str | None, stops: bool) -> None:
    first = await stores.runs.create(new_run(app_id="b", **RESUMES), None)
    changes = {**RESUMES, "on_session_busy": OnSessionBusy.INTERRUPT}
    newest = await stores.runs.create(new_run(app_id=app, **changes), None)
    await InterruptSession(stores.runs, stores.log)(newest)
    assert await claimed(stores.runs) == [newest if stops else first]


async def test_a_refused_start_of_a_busy_workspace_says_which_run_it_is(stores: Stores) -> None:
    first = await stores.runs.create(new_run(**RESUMES), None)
    with pytest.raises(RunyardError) as raised:
        await stores.runs.create(new_run(**RESUMES, on_session_busy=OnSessionBusy.REJECT), None)
    assert (raised.value.code, raised.value.detail) == (ErrorCode.SESSION_BUSY, f"{first}, which is to be over first, is queued")
