"""Attempts that fail in a way that can pass, in front of a scripted manager: who is tried again, when, and with what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from control_plane.domain.placing import GO_ON
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeManager, lose_the_call, refuse

TOOL = {"toolId": "t1", "name": "shell"}


def fail(attempt: FakeAttempt, code: str = "network_error", **more: Any) -> None:
    attempt.end(outcome="error", errorCode=code, errorMessage=f"it was {code}", result=None, **more)


async def scheduled(replica: Replica, run_id: str) -> list[dict[str, Any]]:
    return [each["data"] for each in await replica.events(run_id) if each["kind"] == "retry.scheduled"]


async def the_wait_is_over(stores: Stores) -> None:
    await stores.pool.execute("UPDATE run_heads SET claim_after = now() WHERE claim_after IS NOT NULL")


async def until_scheduled(replica: Replica, run_id: str) -> dict[str, Any]:
    return await replica.until_so(run_id, lambda shown: shown["nextAttemptAt"] is not None)


async def test_a_failure_that_can_pass_is_followed_by_another_attempt_after_a_wait(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    run_id = await replica.start(prompt="do it")
    first = await manager.begun(run_id)
    first.say("session.started", {"engineSession": "e-1"})
    first.say("message.delta", {"messageId": "m", "text": "I th"})
    fail(first, retryAfterMs=30_000)
    shown = await until_scheduled(replica, run_id)
    assert (shown["status"], shown["phase"], shown["errorCode"]) == ("running", "starting", None)
    assert await stores.pool.fetchval("SELECT lease_token FROM run_heads") is None
    await until(lambda: first.released)
    [event] = await scheduled(replica, run_id)
    assert {name: event[name] for name in ("by", "errorCode", "attempt", "delayMs", "reason")} == {
        "by": "runyard", "errorCode": "network_error", "attempt": 2, "delayMs": 30_000, "reason": "it was network_error",
    }  # fmt: skip
    when = datetime.fromisoformat(event["at"])
    assert abs((when - datetime.fromisoformat(shown["nextAttemptAt"])).total_seconds()) < 1
    await the_wait_is_over(stores)
    second = await manager.begun(run_id, 2)
    assert second.request["messages"] == [{"role": "user", "content": "do it"}]
    assert second.request.get("resumeSessionId") is None
    second.end()
    shown = await replica.until(run_id, "success")
    assert (shown["attempt"], shown["nextAttemptAt"]) == (2, None)


async def test_the_same_failure_again_and_again_ends_the_run_with_its_own_code(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(retry={"maxAttempts": 2})
    for number in (1, 2):
        fail(await manager.begun(run_id, number))
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["errorMessage"]) == ("network_error", "it was network_error")
    assert len(await scheduled(replica, run_id)) == 1


async def test_who_wants_one_attempt_gets_one(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(retry={"maxAttempts": 1})
    fail(await manager.begun(run_id))
    assert (await replica.until(run_id, "error"))["attempt"] == 1


async def test_an_engine_that_breaks_every_time_makes_its_run_poison(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(retry={"maxAttempts": 2})
    for number in (1, 2):
        fail(await manager.begun(run_id, number), "engine_exit_nonzero", exitCode=139)
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["exitCode"]) == ("poison_run", 139)
    assert shown["errorMessage"] == "all 2 attempts broke, the last with engine_exit_nonzero: it was engine_exit_nonzero"


async def test_attempts_that_their_executors_never_had_are_no_fault_of_the_run(replica: Replica, manager: FakeManager) -> None:
    manager.moods["start"] += [lose_the_call, refuse(ErrorCode.CONFLICT)] * 3
    run_id = await replica.start(retry={"maxAttempts": 1})
    attempt = await manager.begun(run_id)
    assert attempt.number == 4
    attempt.end()
    await replica.until(run_id, "success")
    assert (await replica.kinds(run_id)).count("attempt.lost") == 3


async def test_attempts_that_their_executors_never_had_use_up_none_of_the_runs_own(
    replica: Replica, manager: FakeManager
) -> None:
    manager.moods["start"] += [lose_the_call, refuse(ErrorCode.CONFLICT)] * 2
    run_id = await replica.start(retry={"maxAttempts": 2})
    fail(await manager.begun(run_id), "engine_exit_nonzero", exitCode=139)
    fail(await manager.begun(run_id, 2), "engine_exit_nonzero", exitCode=139)
    shown = await replica.until(run_id, "error")
    assert shown["errorMessage"] == "all 2 attempts broke, the last with engine_exit_nonzero: it was engine_exit_nonzero"


@pytest.mark.parametrize("did", ["tool", "question"])
async def test_what_was_done_is_not_done_twice_without_leave(replica: Replica, manager: FakeManager, did: str) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    if did == "tool":
        attempt.say("tool.started", TOOL)
    else:
        attempt.ask()
    fail(attempt)
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["retryable"]) == ("network_error", True)
    assert await scheduled(replica, run_id) == []


async def test_with_leave_the_next_attempt_goes_on_with_the_session(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(retry={"afterSideEffects": True})
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-1"})
    attempt.say("tool.started", TOOL)
    attempt.ask()
    await replica.until(run_id, "waiting_user")
    fail(attempt)
    second = await manager.begun(run_id, 2)
    assert second.request["resumeSessionId"] == "e-1"
    assert second.request["messages"] == [{"role": "user", "content": GO_ON}]
    [gone] = [each["data"] for each in await replica.events(run_id) if each["kind"] == "interaction.resolved"]
    assert gone["how"] == "withdrawn"
    second.end()
    await replica.until(run_id, "success")


async def test_with_leave_a_lost_attempt_is_followed_by_one_that_goes_on(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(retry={"afterSideEffects": True})
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-1"})
    attempt.say("tool.started", TOOL)
    attempt.end(outcome="lost", errorCode="executor_lost", errorMessage="gone", result=None)
    second = await manager.begun(run_id, 2)
    assert (second.request["resumeSessionId"], second.request["messages"][0]["content"]) == ("e-1", GO_ON)
    second.end()
    await replica.until(run_id, "success")


async def test_a_profile_may_give_the_leave_and_take_it(replica: Replica, manager: FakeManager) -> None:
    for app_id, allowed in (("bold", True), ("shy", False)):
        app = {"appId": app_id, "name": app_id, "runtimeDefaults": {"retry": {"afterSideEffects": allowed, "maxAttempts": 2}}}
        answer = await replica.http.post("/api/apps/register", json=app)
        assert answer.json()["runtimeDefaults"]["retry"] == {"afterSideEffects": allowed, "maxAttempts": 2}
    bold = await replica.start(executionProfile="bold")
    shy = await replica.start(executionProfile="shy", retry={"afterSideEffects": True})
    for run_id in (bold, shy):
        attempt = await manager.begun(run_id)
        attempt.say("tool.started", TOOL)
        fail(attempt)
    (await manager.begun(bold, 2)).end()
    await replica.until(bold, "success")
    await replica.until(shy, "error")


async def test_an_executor_that_cannot_start_the_engine_is_asked_again(replica: Replica, manager: FakeManager) -> None:
    manager.moods["start"].append(refuse(ErrorCode.ENGINE_START_FAILED))
    run_id = await replica.start()
    second = await manager.begun(run_id)
    assert second.number == 2
    second.end()
    await replica.until(run_id, "success")
    assert (await replica.kinds(run_id))[:3] == ["run.status", "retry.scheduled", "run.status"]


async def test_a_model_that_names_its_time_is_not_asked_sooner(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    run_id = await replica.start()
    fail(await manager.begun(run_id), "rate_limited", retryAfterMs=1500)
    (await manager.begun(run_id, 2)).end()
    await replica.until(run_id, "success")
    [event] = await scheduled(replica, run_id)
    assert event["delayMs"] == 1500
    began = await stores.pool.fetchval("SELECT created_at FROM attempts WHERE attempt = 2")
    assert datetime.fromisoformat(event["at"]) <= began


async def test_a_run_that_has_not_that_much_time_learns_it_at_once(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()  # the scripted manager gives it a minute
    fail(await manager.begun(run_id), "rate_limited", retryAfterMs=61_000)
    assert (await replica.until(run_id, "error"))["errorCode"] == "rate_limited"


async def test_a_stop_while_a_run_waits_for_its_next_attempt_ends_it_at_once(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    fail(await manager.begun(run_id), "rate_limited", retryAfterMs=30_000)
    await until_scheduled(replica, run_id)
    assert (await replica.stop(run_id)).json()["status"] == "canceled"
    assert len(manager.attempts(run_id)) == 1


async def test_another_replica_takes_up_what_waits_for_its_next_attempt(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url) as one:
        run_id = await one.start()
        fail(await manager.begun(run_id), retryAfterMs=30_000)
        await until_scheduled(one, run_id)
    await the_wait_is_over(stores)
    async with replica_at(database, manager_url) as two:
        (await manager.begun(run_id, 2)).end()
        await two.until(run_id, "success")
        assert len(manager.attempts(run_id)) == 2


async def test_what_an_attempt_was_told_is_told_to_the_one_that_begins_afresh(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start(prompt="do it")
    first = await manager.begun(run_id)
    first.say("session.started", {"engineSession": "e-1"})
    await replica.until(run_id, "running")
    await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "and that"})
    await until(lambda: bool(first.messages))
    fail(first)
    second = await manager.begun(run_id, 2)
    assert [each["content"] for each in second.request["messages"]] == ["do it"]
    await until(lambda: [each["text"] for each in second.messages] == ["and that"])
    second.end()
    await replica.until(run_id, "success")


@pytest.mark.parametrize("policy", [{"maxAttempts": 0}, {"maxAttempts": 11}, {"maxAttempts": 1.5}, {"backoff": 3}])
async def test_a_policy_nobody_could_keep_is_refused(replica: Replica, policy: dict[str, Any]) -> None:
    answer = await replica.http.post("/api/runs/start", json={"provider": "scripted", "prompt": "hi", "retry": policy})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("retry.")
