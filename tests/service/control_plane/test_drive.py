"""A whole control plane in front of a scripted manager: placing, starting, losing and parking, one engine at a time."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.domain.run import Placement
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, blocked, new_run, replica_at, soon
from tests.service.control_plane.fake_manager import FakeManager, Gate, lose_the_answer, lose_the_call, refuse

LOST = {"outcome": "lost", "errorCode": "executor_lost", "errorMessage": "gone", "result": None}


async def test_a_run_goes_from_start_to_end_and_its_attempt_is_released(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("message.completed", {"messageId": "m", "text": "hi", "final": True})
    attempt.end()
    assert (await replica.until(run_id, "success"))["result"] == "done"
    await until(lambda: attempt.released)
    assert await replica.kinds(run_id) == [
        "run.status", "run.status", "attempt.started", "message.completed", "attempt.ended", "run.status",
    ]  # fmt: skip


# ---- starting: one engine, whatever is heard of it ----


async def test_a_start_whose_answer_was_lost_is_repeated_at_the_same_executor(replica: Replica, manager: FakeManager) -> None:
    manager.moods["start"] += [lose_the_answer, lose_the_answer]
    run_id = await replica.start()
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    assert [each.number for each in manager.attempts(run_id)] == [1]


async def test_a_never_sent_after_an_unknown_start_moves_nothing_elsewhere(replica: Replica, manager: FakeManager) -> None:
    unreached = refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False)
    manager.moods["start"] += [lose_the_answer, unreached, unreached]
    run_id = await replica.start()
    await until(lambda: manager.calls["start"] >= 4)
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")
    assert len(manager.attempts(run_id)) == 1
    assert manager.calls["propose"] == 1


@pytest.mark.parametrize("code", [ErrorCode.QUEUE_FULL, ErrorCode.CONFLICT])
async def test_a_no_after_an_unknown_start_forbids_what_may_still_come(
    replica: Replica, manager: FakeManager, code: ErrorCode
) -> None:
    """The first call may be on its way yet: it must find its door closed before another executor is asked."""
    manager.moods["start"] += [lose_the_call, refuse(code)]
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    assert attempt.number == 2
    assert [(run_id, 1) in each.forbidden for each in manager.executors.values()].count(True) == 1
    attempt.end()
    await replica.until(run_id, "success")


@pytest.mark.parametrize("mood", [
    refuse(ErrorCode.QUEUE_FULL), refuse(ErrorCode.CONFLICT), refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False),
])  # fmt: skip
async def test_a_definite_no_places_the_same_attempt_elsewhere(replica: Replica, manager: FakeManager, mood: object) -> None:
    manager.moods["start"].append(mood)  # type: ignore[arg-type]
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    assert attempt.number == 1
    refusing = next(name for name, each in manager.executors.items() if not each.attempts)
    assert manager.proposals[1]["avoid"] == [refusing]
    attempt.end()
    await replica.until(run_id, "success")


async def test_a_refusal_for_good_ends_the_run_with_its_reason(replica: Replica, manager: FakeManager) -> None:
    manager.moods["start"].append(refuse(ErrorCode.AUTH_MISSING))
    shown = await replica.until(await replica.start(), "error")
    assert (shown["errorCode"], shown["errorMessage"]) == ("auth_missing", "as scripted")


async def test_a_start_nobody_confirms_becomes_another_attempt(replica: Replica, manager: FakeManager) -> None:
    manager.moods["start"] += [lose_the_call] * 200
    run_id = await replica.start()
    await until(lambda: manager.calls["propose"] == 2)
    manager.moods["start"].clear()
    attempt = await manager.begun(run_id)
    assert attempt.number == 2
    attempt.end()
    await replica.until(run_id, "success")
    assert "attempt.lost" in await replica.kinds(run_id)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_start_left_by_another_driver_is_asked_for_where_it_was_sent(
    stores: Stores, manager: FakeManager, manager_url: str, database: str, heard: bool
) -> None:
    """Whether it was heard nobody knows: «not sent» now says nothing about then, and the quote must be a fresh one."""
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 0.1)
    one = manager.executors["one"]
    await stores.runs.next_attempt(lease, Placement("one", one.instance, "http://127.0.0.1:1"))
    if heard:
        manager.accept(one, {"runId": run_id, "attempt": 1})
    manager.moods["start"] += [refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False)] * 3
    async with replica_at(database, manager_url) as replica:
        await replica.until(run_id, "running")
        [attempt] = one.attempts.values()
        attempt.end()
        await replica.until(run_id, "success")
    assert manager.attempts(run_id) == [attempt]
    assert manager.calls["propose"] == 0
    if not heard:
        assert one.clock_ms() - attempt.request["leash"]["clockMs"] < 60_000


async def test_a_replica_that_lost_its_run_writes_and_starts_no_more_of_it(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    gate = Gate()
    manager.moods["propose"].append(gate)
    run_id = await replica.start()
    await gate.reached.wait()
    await stores.pool.execute("UPDATE run_heads SET lease_token = gen_random_uuid(), lease_until = now() + interval '1 second'")
    gate.open.set()
    attempt = await manager.begun(run_id)  # by whoever claims it when that lease has lapsed
    attempt.end()
    await replica.until(run_id, "success")
    assert manager.calls["propose"] == 2


async def test_a_run_waits_in_the_queue_while_nobody_has_room(replica: Replica, manager: FakeManager) -> None:
    for each in manager.executors.values():
        each.gone = True
    run_id = await replica.start()
    await until(lambda: manager.calls["propose"] >= 3)
    assert (await replica.show(run_id))["status"] == "queued"
    manager.executors["two"].gone = False
    (await manager.begun(run_id)).end()
    await replica.until(run_id, "success")


# ---- stopping ----


async def test_a_stop_while_the_start_is_on_its_way_ends_the_attempt(replica: Replica, manager: FakeManager) -> None:
    gate = Gate()
    manager.moods["start"].append(gate)
    run_id = await replica.start()
    await gate.reached.wait()
    assert (await replica.stop(run_id)).json()["status"] == "stopping"
    gate.open.set()
    shown = await replica.until(run_id, "canceled")
    assert all(attempt.over for attempt in manager.attempts(run_id))
    assert shown["errorCode"] == "user_canceled"


async def test_a_stop_is_sent_again_until_the_end_comes(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    await manager.begun(run_id)
    await replica.until(run_id, "running")
    manager.moods["stop"] += [lose_the_call, lose_the_call]
    await replica.stop(run_id)
    await replica.until(run_id, "canceled")
    assert manager.calls["stop"] >= 3


async def test_a_stop_of_a_queued_run_that_has_no_room_ends_it(replica: Replica, manager: FakeManager) -> None:
    for each in manager.executors.values():
        each.gone = True
    run_id = await replica.start()
    await until(lambda: manager.calls["propose"] >= 1)
    await replica.stop(run_id)
    await replica.until(run_id, "canceled")


# ---- losing ----


async def test_a_cut_stream_is_read_on_from_its_cursor(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    for turn in range(5):
        attempt.say("message.completed", {"messageId": f"m{turn}", "text": f"{turn}"})
        await until(lambda: manager.calls["stream"] > 0)
        attempt.cut()
    attempt.end()
    await replica.until(run_id, "success")
    said = [each["data"]["text"] for each in await replica.events(run_id) if each["kind"] == "message.completed"]
    assert said == ["0", "1", "2", "3", "4"]


async def test_a_silent_stream_is_opened_again_while_its_executor_answers(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    attempt.silent = True
    await until(lambda: manager.calls["stream"] >= 6)
    assert (await replica.show(run_id))["status"] == "running"
    assert "attempt.lost" not in await replica.kinds(run_id)
    attempt.silent = False
    attempt.end()
    await replica.until(run_id, "success")


async def test_an_executor_that_is_gone_is_lost_only_after_its_leash(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    await manager.begun(run_id)
    await replica.until(run_id, "running")
    owner = next(each for each in manager.executors.values() if each.attempts)
    before = len(owner.renewals)
    await until(lambda: len(owner.renewals) > before)
    last = asyncio.get_running_loop().time()
    owner.gone = True
    owner.attempts[run_id, 1].silent = True
    again = await manager.begun(run_id, 2)
    assert asyncio.get_running_loop().time() - last > 2.0  # the leash, less the age of the last renewal
    again.end()
    await replica.until(run_id, "success")


async def test_an_executor_its_manager_does_not_know_is_not_taken_for_gone(replica: Replica, manager: FakeManager) -> None:
    """A manager that was just started, or a fleet that shrank: the engine may live, and a second one must not start."""
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    manager.moods["stream"] += [refuse(ErrorCode.NOT_FOUND, sent=False)] * 3
    attempt.cut()
    await until(lambda: not manager.moods["stream"])
    attempt.end()
    await replica.until(run_id, "success")
    assert len(manager.attempts(run_id)) == 1


async def test_an_executor_that_does_not_have_the_attempt_has_lost_it_at_once(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    owner = next(each for each in manager.executors.values() if each.attempts)
    owner.attempts.clear()
    attempt.cut()
    again = await manager.begun(run_id)
    assert again.number == 2
    again.end()
    await replica.until(run_id, "success")


async def test_work_that_was_begun_is_not_done_twice(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("tool.started", {"toolId": "t", "name": "shell"})
    attempt.say("tool.completed", {"toolId": "t", "name": "shell", "status": "completed"})
    attempt.end(**LOST)
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["retryable"], len(manager.attempts(run_id))) == ("executor_lost", True, 1)


async def test_attempts_that_end_silently_come_to_an_end(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    for number in (1, 2, 3):
        (await manager.begun(run_id, number)).end(**LOST)
    shown = await replica.until(run_id, "error")
    assert (shown["errorCode"], shown["retryable"]) == ("poison_run", False)
    assert shown["errorMessage"] == "all 3 attempts broke, the last with executor_lost: gone"
    assert len(manager.attempts(run_id)) == 3


# ---- questions ----


async def test_a_reply_is_delivered_until_it_is_confirmed(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask()
    await replica.until(run_id, "waiting_user")
    manager.moods["reply"] += [lose_the_call, lose_the_call]
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    await until(lambda: "q1" in attempt.replies)
    attempt.say("interaction.resolved", {"questionId": "q1", "how": "answered", "answer": {"answer": "blue"}})
    attempt.end()
    await replica.until(run_id, "success")
    assert attempt.replies["q1"]["answer"] == "blue"


async def test_a_reply_the_engine_no_longer_wants_is_undeliverable_once(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask()
    await replica.until(run_id, "waiting_user")
    manager.moods["reply"].append(refuse(ErrorCode.CONFLICT))
    await replica.reply(run_id, "q1", answer="blue")
    await until(lambda: not manager.moods["reply"])
    attempt.say("interaction.resolved", {"questionId": "q1", "how": "withdrawn"})
    await replica.until(run_id, "running")
    attempt.end()
    await replica.until(run_id, "success")
    told = [each for each in await replica.events(run_id) if each["kind"] in ("diagnostic", "interaction.resolved")]
    assert [each["kind"] for each in told] == ["diagnostic", "interaction.resolved"]
    assert told[0]["data"]["code"] == "reply_undeliverable"


async def test_a_reply_refused_by_an_attempt_that_was_lost_is_told_to_the_next_one(
    replica: Replica, manager: FakeManager
) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "s-1"})
    attempt.ask()
    await replica.until(run_id, "waiting_user")
    manager.moods["reply"].append(refuse(ErrorCode.CONFLICT))  # its executor was killed, and knows by now that it has ended
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    await until(lambda: not manager.moods["reply"])
    attempt.end(**LOST)
    again = await manager.begun(run_id, 2)
    assert "blue" in again.request["messages"][0]["content"]
    again.end()
    await replica.until(run_id, "success")
    resolved = [each["data"] for each in await replica.events(run_id) if each["kind"] == "interaction.resolved"]
    assert [(each["questionId"], each["how"]) for each in resolved] == [("q1", "answered")]


async def test_a_parked_run_is_woken_by_its_reply_which_travels_with_the_start(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "s-1"})
    attempt.ask()
    attempt.end(**LOST)
    await replica.phase(run_id, "parked")
    await replica.reply(run_id, "q1", answer="blue")
    again = await manager.begun(run_id, 2)
    assert again.request["resumeSessionId"] == "s-1"
    assert "blue" in again.request["messages"][0]["content"]
    again.end()
    await replica.until(run_id, "success")


async def test_a_reply_accepted_while_its_executor_dies_is_told_to_the_next_attempt(
    replica: Replica, manager: FakeManager
) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask()
    await replica.until(run_id, "waiting_user")
    owner = next(each for each in manager.executors.values() if each.attempts)
    owner.gone = True
    attempt.silent = True
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    again = await manager.begun(run_id, 2)
    assert "blue" in again.request["messages"][-1]["content"]
    again.end()
    await replica.until(run_id, "success")


async def test_a_woken_run_whose_start_nobody_confirms_is_not_put_to_rest_again(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask()
    attempt.end(**LOST)
    await replica.phase(run_id, "parked")
    manager.moods["start"] += [lose_the_call] * 200
    await replica.reply(run_id, "q1", answer="blue")
    await until(lambda: manager.calls["propose"] == 3)
    manager.moods["start"].clear()
    again = await manager.begun(run_id, 2)
    assert again.number == 3
    assert "blue" in again.request["messages"][-1]["content"]
    again.end()
    await replica.until(run_id, "success")


async def test_what_engines_tell_is_written_while_readers_wait_for_a_connection(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    async with replica_at(database, manager_url, pool_size=2) as replica:
        run_id = await replica.start()
        attempt = await manager.begun(run_id)
        await replica.until(run_id, "running")
        async with stores.pool.acquire() as other, asyncio.TaskGroup() as readers, other.transaction():
            await other.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await other.execute("LOCK TABLE apps IN ACCESS EXCLUSIVE MODE")
            for _ in range(10):
                readers.create_task(replica.http.get("/api/apps"))
            await blocked(stores, 2)
            attempt.say("message.completed", {"text": "hi"})
            said = "SELECT count(*) FROM run_events WHERE run_id = $1 AND kind = 'message.completed'"
            await soon(lambda: stores.pool.fetchval(said, run_id))
        attempt.end()
        await replica.until(run_id, "success")
