"""What a model refuses again and again is not tried again and again: who waits, who learns it at once, who tries for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.domain.breaker import BREAKING, PROBE_SECONDS
from control_plane.domain.news import Hold, Stop
from control_plane.domain.run import Lease
from control_plane.runs.gate import Gate
from control_plane.runs.record import Recorder
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.run_log import Write
from shared.contracts.events import Diagnostic
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import Replica, Stores, blocked, frame, new_run, replica_at, running, soon
from tests.service.control_plane.fake_manager import FakeManager, refuse

HOLD = Hold(300, Diagnostic(code="provider_paused", message="it waits"))
ONCE = {"retry": {"maxAttempts": 1}}
LIMIT = BREAKING[ErrorCode.RATE_LIMITED].failures
REFUSALS = BREAKING[ErrorCode.AUTH_FAILED].failures


async def fails(replica: Replica, manager: FakeManager, code: str, **request: Any) -> str:
    run_id = await replica.start(**ONCE, **request)
    attempt = await manager.begun(run_id)
    attempt.end(outcome="error", errorCode=code, errorMessage="as scripted", result=None)
    await replica.until(run_id, "error")
    return run_id


async def opened(replica: Replica, manager: FakeManager, code: str, **request: Any) -> None:
    for _ in range(BREAKING[ErrorCode(code)].failures):
        await fails(replica, manager, code, **request)


async def paused(replica: Replica) -> list[dict[str, Any]]:
    return (await replica.http.get("/api/providers")).json()["paused"]


async def try_is_due(stores: Stores) -> None:
    """The rest of every breaker is over, and its waiting runs may be claimed."""
    await stores.pool.execute("UPDATE breakers SET try_at = now() - interval '1 second'")
    await stores.pool.execute("UPDATE run_heads SET claim_after = now() WHERE held")


async def opens(stores: Stores, try_in: float, trying: str | None = None) -> None:
    await stores.pool.execute(
        "INSERT INTO breakers VALUES ('', 'scripted', 'rate_limited', 5, now(), now(), now() + make_interval(secs => $1), $2, 3)",
        try_in, trying,
    )  # fmt: skip


async def passes(stores: Stores, seconds: float) -> None:
    """Waits and rests have so much less before them."""
    await stores.pool.execute("UPDATE breakers SET try_at = try_at - make_interval(secs => $1)", seconds)
    await stores.pool.execute("UPDATE run_heads SET claim_after = claim_after - make_interval(secs => $1)", seconds)


async def held(replica: Replica, run_id: str) -> list[dict[str, Any]]:
    return [each["data"] for each in await replica.events(run_id) if each["data"].get("code") == "provider_paused"]


async def until_held(replica: Replica, stores: Stores, *run_ids: str) -> None:
    for run_id in run_ids:
        await replica.until_so(run_id, lambda shown: shown["lastCursor"] >= 2)
        assert len(await held(replica, run_id)) == 1
        assert (await replica.show(run_id))["status"] == "queued"


async def test_after_too_many_too_many_requests_further_runs_wait_in_the_queue_and_say_why(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    await opened(replica, manager, "rate_limited")
    [shown] = await paused(replica)
    assert {name: shown[name] for name in ("provider", "appId", "errorCode", "failures", "runs", "trying")} == {
        "provider": "scripted", "appId": None, "errorCode": "rate_limited", "failures": LIMIT, "runs": "wait", "trying": None,
    }  # fmt: skip
    waiting = await replica.start()
    await until_held(replica, stores, waiting)
    [told] = await held(replica, waiting)
    assert told["message"] == f"it waits for scripted, which was refused {LIMIT} times in a row: too many requests (rate_limited)"
    assert manager.attempts(waiting) == []
    await stores.pool.execute("DELETE FROM breakers")  # as when the app's credentials change
    (await manager.begun(waiting)).end()
    await replica.until(waiting, "success")


async def test_one_run_at_a_time_tries_and_its_success_lets_all_others_go(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        await opened(one, manager, "rate_limited")
        waiting = [await replica.start() for replica in (one, two) * 6]
        await until_held(one, stores, *waiting)
        await try_is_due(stores)
        await one.until_so(waiting[0], lambda _: any(map(manager.attempts, waiting)))
        await try_is_due(stores)
        kept_back = "SELECT count(*) >= $1 FROM run_heads WHERE held AND claim_after > now()"
        await soon(lambda: stores.pool.fetchval(kept_back, len(waiting) - 1))  # every other one was claimed once more
        [trying] = [run_id for run_id in waiting if manager.attempts(run_id)]
        assert (await paused(two))[0]["trying"] == trying
        (await manager.begun(trying)).end()
        for run_id in waiting:
            if not (attempt := await manager.begun(run_id)).over:
                attempt.end()
            await two.until(run_id, "success")
        assert await paused(one) == []
        assert [len(await held(one, run_id)) for run_id in waiting] == [1] * len(waiting)


async def test_a_try_that_fails_makes_the_rest_longer(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    await opened(replica, manager, "rate_limited")
    await try_is_due(stores)
    await fails(replica, manager, "rate_limited")
    rest = await stores.pool.fetchval("SELECT extract(epoch FROM try_at - now()) FROM breakers")
    row = BREAKING[ErrorCode.RATE_LIMITED]
    assert row.rest < rest <= 2 * row.rest
    assert (await paused(replica))[0]["failures"] == LIMIT + 1


@pytest.mark.parametrize("code", ["auth_failed", "quota_exceeded"])
async def test_refused_credentials_fail_further_runs_at_once_with_the_same_code(
    replica: Replica, manager: FakeManager, stores: Stores, code: str
) -> None:
    await opened(replica, manager, code)
    answer = await replica.http.post("/api/runs/start", json={"provider": "scripted", "prompt": "hi"})
    assert (answer.status_code, answer.json()["code"]) == (424, code)
    assert 0 < int(answer.headers["retry-after"]) <= BREAKING[ErrorCode(code)].rest
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == REFUSALS


async def test_runs_that_waited_in_the_queue_learn_it_too(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    await opened(replica, manager, "auth_failed")
    await stores.pool.execute("UPDATE breakers SET opened_at = NULL, try_at = NULL")  # it counts yet
    for each in manager.executors.values():
        each.gone = True
    run_id = await replica.start()
    await stores.pool.execute("UPDATE breakers SET opened_at = now(), try_at = now() + interval '1 minute'")
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["attempt"]) == ("auth_failed", 0)
    assert shown["errorMessage"].startswith(f"{REFUSALS} times in a row: the model refused the credentials")


async def test_a_run_tries_refused_credentials_when_their_rest_is_over(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    await opened(replica, manager, "auth_failed")
    await try_is_due(stores)
    run_id = await replica.start()
    other = await replica.start()
    attempt = await manager.begun(run_id)
    await until_held(replica, stores, other)  # it waits for what becomes of the other
    attempt.say("tool.started", {"toolId": "t", "name": "shell"})  # a model that calls a tool has taken them
    (await manager.begun(other)).end()
    await replica.until(other, "success")
    assert await paused(replica) == []
    attempt.end()
    await replica.until(run_id, "success")


async def test_one_apps_credentials_are_not_anothers(replica: Replica, manager: FakeManager) -> None:
    for app_id in ("shop", "bank"):
        await replica.http.post("/api/apps/register", json={"appId": app_id, "name": app_id})
    await opened(replica, manager, "auth_failed", executionProfile="shop")
    [shown] = await paused(replica)
    assert shown["appId"] == "shop"
    for request in ({"executionProfile": "bank"}, {}):
        run_id = await replica.start(**request)
        (await manager.begun(run_id)).end()
        await replica.until(run_id, "success")
    seen = await replica.http.get("/api/providers", headers=(await replica.key("bank")).headers)
    assert seen.json()["paused"] == []


async def test_new_credentials_are_tried_at_once(replica: Replica, manager: FakeManager) -> None:
    app = {"appId": "shop", "name": "shop"}
    await replica.http.post("/api/apps/register", json=app)
    await opened(replica, manager, "auth_failed", executionProfile="shop")
    await replica.http.post("/api/apps/register", json=app)
    run_id = await replica.start(executionProfile="shop")
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")


async def test_a_success_between_them_makes_failures_no_series(replica: Replica, manager: FakeManager) -> None:
    for _ in range(LIMIT - 1):
        await fails(replica, manager, "rate_limited")
    run_id = await replica.start()
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    await fails(replica, manager, "rate_limited")
    assert await paused(replica) == []


async def test_a_held_run_can_be_stopped_at_once(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    await opened(replica, manager, "rate_limited")
    run_id = await replica.start()
    await until_held(replica, stores, run_id)
    assert (await replica.stop(run_id)).json()["status"] == "canceled"


@pytest.fixture
async def gate(stores: Stores) -> AsyncIterator[Gate]:
    recorder = Recorder(stores.log)
    async with running(recorder.run()):
        yield Gate(BreakerStore(stores.pool), recorder)


async def claimed(stores: Stores) -> Lease:
    """The next run of the line."""
    [lease] = await stores.runs.claim(1, 60)
    return lease


async def held_back(stores: Stores, gate: Gate) -> bool:
    """Whether the gate keeps the next run of the line back, which is one that was just made."""
    made = await stores.runs.create(new_run(), None)
    lease = await claimed(stores)
    assert lease.run_id == made
    return await gate(lease, await stores.runs.driven(made))


async def test_a_run_that_is_stopped_on_its_way_to_the_gate_is_not_held(stores: Stores, gate: Gate) -> None:
    await opens(stores, 300)
    run_id = await stores.runs.create(new_run(), None)
    lease = await claimed(stores)
    read_before = await stores.runs.driven(run_id)
    await stores.log.write([Write(run_id, [Stop()])])
    assert await gate(lease, read_before)
    assert (await claimed(stores)).run_id == run_id  # whoever claims it ends it


async def test_a_stop_the_hold_waited_for_is_seen(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    lease = await claimed(stores)
    async with stores.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM run_heads WHERE run_id = $1 FOR UPDATE", run_id)
        await other.execute(
            "UPDATE agent_runs SET status = 'stopping', stop_requested_at = now(), stop_reason = 'user_canceled' WHERE id = $1",
            run_id,
        )
        holding = asyncio.ensure_future(stores.log.write([Write(run_id, [HOLD], lease.token)]))
        await blocked(stores, 1)
    await holding
    assert (await claimed(stores)).run_id == run_id


async def test_a_hold_whose_commit_nobody_heard_of_is_told_once(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    window = [Write(run_id, [HOLD], (await claimed(stores)).token)]
    assert await stores.log.write(window) != [None]
    assert await stores.log.write(window) == [None]  # it was let go with the first
    await passes(stores, 301)
    await stores.log.write([Write(run_id, [HOLD], (await claimed(stores)).token)])
    assert await stores.kinds(run_id) == ["run.status", "diagnostic"]


async def test_who_tries_keeps_its_turn_while_it_looks_for_an_executor(stores: Stores, gate: Gate) -> None:
    await opens(stores, 0)
    run_id = await stores.runs.create(new_run(), None)
    for _ in range(3):
        lease = await claimed(stores)
        assert not await gate(lease, await stores.runs.driven(run_id))
        assert await held_back(stores, gate)  # and nobody else has it
        await stores.runs.let_go(lease)  # there was no room


async def test_who_waits_for_an_executor_does_not_try_for_ever(stores: Stores, gate: Gate) -> None:
    await opens(stores, 0)
    assert not await held_back(stores, gate)
    await passes(stores, PROBE_SECONDS - 1)
    assert await held_back(stores, gate)
    await passes(stores, 1)
    assert not await held_back(stores, gate)


@pytest.mark.parametrize("another_comes", [True, False])
async def test_who_only_waits_leaves_the_next_turn_to_another_and_has_it_again_where_none_comes(
    stores: Stores, gate: Gate, another_comes: bool
) -> None:
    await opens(stores, 0)
    run_id = await stores.runs.create(new_run(), None)
    lease = await claimed(stores)
    assert not await gate(lease, await stores.runs.driven(run_id))
    await stores.runs.let_go(lease)  # there was no room
    await passes(stores, PROBE_SECONDS)
    assert await gate(await claimed(stores), await stores.runs.driven(run_id))
    if another_comes:
        assert not await held_back(stores, gate)
    await passes(stores, 11)
    assert await gate(await claimed(stores), await stores.runs.driven(run_id)) is another_comes


async def test_who_waits_for_a_try_that_works_is_claimed_at_most_twice_in_ten_seconds(stores: Stores, gate: Gate) -> None:
    lease = await stores.started()
    await opens(stores, -60, trying=lease.run_id)
    assert await held_back(stores, gate)
    await passes(stores, 9)
    assert await stores.runs.claim(10, 60) == []
    await passes(stores, 2)
    again = await claimed(stores)
    assert await gate(again, await stores.runs.driven(again.run_id))


async def test_a_try_by_a_run_that_has_worked_before_closes_the_breaker_with_its_first_tool(stores: Stores) -> None:
    lease = await stores.started()
    await opens(stores, 30, trying=lease.run_id)
    await stores.pool.execute("UPDATE run_heads SET acted = true")
    tool = frame(1, "tool.started", '{"toolId":"t","name":"shell"}')
    await stores.log.write([Write(lease.run_id, [tool], lease.token)])
    assert await BreakerStore(stores.pool).one("", "scripted") is None


async def test_who_tries_and_finds_no_room_at_first_is_placed_soon_after(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    await opened(replica, manager, "rate_limited")
    await try_is_due(stores)
    manager.moods["propose"].append(refuse(ErrorCode.QUEUE_FULL, sent=False))
    run_id = await replica.start()
    async with asyncio.timeout(5):
        (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    assert await held(replica, run_id) == []


async def test_a_try_whose_run_is_gone_is_followed_by_another(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    await opened(replica, manager, "rate_limited")
    await try_is_due(stores)
    first = await replica.start()
    await manager.begun(first)
    second = await replica.start()
    await until_held(replica, stores, second)
    await try_is_due(stores)  # the first is alive: it is still the one
    await replica.until_so(second, lambda shown: shown["queuePosition"] == 1)
    assert manager.attempts(second) == []
    await replica.stop(first)
    await replica.until(first, "canceled")
    await try_is_due(stores)
    (await manager.begun(second)).end()
    await replica.until(second, "success")
