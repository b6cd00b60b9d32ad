"""Further user messages: rows first, handed to the engine once, in order, and never lost silently."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.messages import MessagesSettled
from control_plane.domain.news import Move
from control_plane.storage.messages import MessageStore, NewMessage
from control_plane.storage.run_log import Write
from shared.contracts.events import AttemptLost
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import PLACE, Replica, Stores, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeManager, Gate, refuse

LOST = {"outcome": "lost", "errorCode": "executor_lost", "errorMessage": "gone", "result": None}


async def say(replica: Replica, run_id: str, text: str, key: str | None = None) -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    return await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": text}, headers=headers)


async def said(replica: Replica, run_id: str, text: str, key: str | None = None) -> str:
    answer = await say(replica, run_id, text, key)
    assert answer.status_code == 202, answer.text
    return answer.json()["messageId"]


async def running(replica: Replica, manager: FakeManager) -> tuple[str, FakeAttempt]:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    return run_id, attempt


def texts(attempt: FakeAttempt) -> list[str]:
    return [each["text"] for each in attempt.messages]


async def notes(replica: Replica, run_id: str, code: str) -> list[str]:
    events = await replica.events(run_id)
    return [each["data"]["message"] for each in events if each["data"].get("code") == code]


async def test_messages_reach_the_engine_once_each_and_in_order(replica: Replica, manager: FakeManager) -> None:
    run_id, attempt = await running(replica, manager)
    ids = [await said(replica, run_id, f"m{n} \t é") for n in range(5)]
    async with asyncio.timeout(20):
        while await notes(replica, run_id, "message_delivered") != ids:
            await asyncio.sleep(0.02)  # polling a condition with a bound
    assert texts(attempt) == [f"m{n} \t é" for n in range(5)]
    assert [each["messageId"] for each in attempt.messages] == ids
    attempt.end()
    await replica.until(run_id, "success")
    assert await notes(replica, run_id, "message_undeliverable") == []


async def test_a_message_to_a_queued_run_waits_for_its_engine(replica: Replica, manager: FakeManager) -> None:
    manager.moods["propose"] += [refuse(ErrorCode.QUEUE_FULL)] * 3
    run_id = await replica.start()
    await said(replica, run_id, "early")
    attempt = await manager.begun(run_id)
    await until(lambda: texts(attempt) == ["early"])
    assert [each["content"] for each in attempt.request["messages"]] == ["hi"]


@pytest.mark.parametrize("code", [ErrorCode.CONFLICT, ErrorCode.PROVIDER_UNAVAILABLE])
async def test_what_cannot_be_taken_now_is_tried_again(replica: Replica, manager: FakeManager, code: ErrorCode) -> None:
    manager.moods["message"] += [refuse(code)] * 2
    run_id, attempt = await running(replica, manager)
    await said(replica, run_id, "first")
    await said(replica, run_id, "second")
    await until(lambda: len(attempt.messages) == 2)
    assert texts(attempt) == ["first", "second"]
    assert manager.calls["message"] == 4


async def test_what_no_engine_ever_takes_is_told(replica: Replica, manager: FakeManager) -> None:
    manager.moods["message"] += [refuse(ErrorCode.CAPABILITY_UNAVAILABLE)]
    run_id, attempt = await running(replica, manager)
    message_id = await said(replica, run_id, "hello")
    async with asyncio.timeout(20):
        while not (told := await notes(replica, run_id, "message_undeliverable")):
            await asyncio.sleep(0.02)  # polling a condition with a bound
    assert told == [f"{message_id}: as scripted"]
    assert attempt.messages == []


@pytest.mark.parametrize("outcome", ["success", "canceled"])
async def test_a_run_that_ends_first_tells_of_every_message_it_left(replica: Replica, manager: FakeManager, outcome: str) -> None:
    manager.moods["message"] += [refuse(ErrorCode.CONFLICT)] * 100
    run_id, attempt = await running(replica, manager)
    ids = [await said(replica, run_id, f"m{n}") for n in range(2)]
    attempt.end(outcome=outcome)
    await replica.until(run_id, outcome)
    left = await notes(replica, run_id, "message_undeliverable")
    assert [each.partition(":")[0] for each in left] == ids
    assert (await replica.kinds(run_id))[-1] == "run.status"


async def test_an_unclaimed_run_that_is_stopped_tells_of_its_message_too(replica: Replica, manager: FakeManager) -> None:
    manager.executors.clear()
    run_id = await replica.start()
    message_id = await said(replica, run_id, "early")
    await replica.stop(run_id)
    await replica.until(run_id, "canceled")
    assert [each.partition(":")[0] for each in await notes(replica, run_id, "message_undeliverable")] == [message_id]


async def test_a_finished_run_takes_no_message(replica: Replica, manager: FakeManager) -> None:
    run_id, attempt = await running(replica, manager)
    attempt.end()
    await replica.until(run_id, "success")
    answer = await say(replica, run_id, "late", key="k")
    assert (answer.status_code, answer.json()["code"], answer.json()["runStatus"]) == (409, "conflict", "success")
    assert (await say(replica, run_id, "late", key="k")).status_code == 409, "the refused message kept its key"


async def test_one_key_is_one_message(replica: Replica, manager: FakeManager) -> None:
    run_id, attempt = await running(replica, manager)
    answers = await asyncio.gather(*(say(replica, run_id, "once", key="k1") for _ in range(10)))
    assert {each.status_code for each in answers} == {202}
    assert len({each.json()["messageId"] for each in answers}) == 1
    assert sorted(each.json()["duplicate"] for each in answers) == [False] + [True] * 9
    await until(lambda: texts(attempt) == ["once"])
    for text, run in (("another", run_id), ("once", await replica.start())):
        refused = await say(replica, run, text, key="k1")
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")
    attempt.end()
    await replica.until(run_id, "success")
    repeated = await say(replica, run_id, "once", key="k1")
    assert (repeated.status_code, repeated.json()["status"]) == (202, "delivered")


async def test_a_key_that_made_a_run_makes_no_message(replica: Replica, manager: FakeManager) -> None:
    body = {"provider": "scripted", "prompt": "hi"}
    answer = await replica.http.post("/api/runs/start", json=body, headers={"idempotency-key": "k2"})
    refused = await say(replica, answer.json()["runId"], "hi", key="k2")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")


async def test_a_provider_that_takes_no_messages_is_not_given_one(replica: Replica, manager: FakeManager) -> None:
    manager.takes_messages = False
    run_id, _attempt = await running(replica, manager)
    answer = await say(replica, run_id, "hello")
    assert (answer.status_code, answer.json()["code"]) == (409, "capability_unavailable")


async def test_another_apps_run_takes_no_message(replica: Replica, manager: FakeManager) -> None:
    _, headers = await replica.key("other")
    run_id, _attempt = await running(replica, manager)
    answer = await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "x"}, headers=headers)
    assert answer.status_code == 404


@pytest.mark.parametrize(("text", "status"), [("", 422), ("x" * (1024 * 1024 + 1), 413)])
async def test_a_message_has_bounds(replica: Replica, manager: FakeManager, text: str, status: int) -> None:
    run_id, _attempt = await running(replica, manager)
    assert (await say(replica, run_id, text)).status_code == status


async def test_at_most_a_hundred_messages_wait(replica: Replica, manager: FakeManager) -> None:
    manager.executors.clear()
    run_id = await replica.start()
    for n in range(100):
        await said(replica, run_id, f"m{n}")
    answer = await say(replica, run_id, "one too many")
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")


async def test_an_unconfirmed_message_travels_with_the_start_that_resumes(replica: Replica, manager: FakeManager) -> None:
    manager.moods["message"] += [refuse(ErrorCode.CONFLICT)] * 1000
    run_id, attempt = await running(replica, manager)
    attempt.say("session.started", {"engineSession": "s-1"})
    attempt.ask()
    message_id = await said(replica, run_id, "and hurry")
    attempt.end(**LOST)
    await replica.phase(run_id, "parked")
    await replica.reply(run_id, "q1", answer="blue")
    again = await manager.begun(run_id, 2)
    [told] = again.request["messages"]
    assert "blue" in told["content"]
    assert told["content"].endswith("and hurry")
    again.end()
    await replica.until(run_id, "success")
    assert await notes(replica, run_id, "message_delivered") == [message_id]
    assert again.messages == [], "what travelled with the start was handed over again"


async def test_an_attempt_that_starts_afresh_is_told_what_the_lost_one_was(replica: Replica, manager: FakeManager) -> None:
    run_id, attempt = await running(replica, manager)
    await said(replica, run_id, "remember")
    await until(lambda: texts(attempt) == ["remember"])
    attempt.end(**LOST)
    again = await manager.begun(run_id, 2)
    await until(lambda: texts(again) == ["remember"])
    again.end()
    await replica.until(run_id, "success")


async def test_who_learns_late_that_a_lost_attempt_took_a_message_does_not_keep_it_from_the_next(stores: Stores) -> None:
    lease = await stores.started()
    messages = MessageStore(stores.pool)
    await messages.add(NewMessage(lease.run_id, "m1", "remember", None, None), None)
    await stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent"))], lease.token)])
    assert await stores.runs.next_attempt(lease, PLACE) == 2
    await stores.log.write([Write(lease.run_id, [MessagesSettled(1, ("m1",))])])
    assert [each.message_id for each in await messages.to_hand_over(lease.run_id, 2)] == ["m1"]
    await stores.log.write([Write(lease.run_id, [MessagesSettled(2, ("m1",))])])
    assert await messages.to_hand_over(lease.run_id, 2) == []


async def test_another_control_plane_delivers_what_the_first_one_took(
    database: str, manager_url: str, manager: FakeManager
) -> None:
    gate = Gate()
    manager.moods["message"].append(gate)
    async with replica_at(database, manager_url) as second:
        async with replica_at(database, manager_url) as first:
            run_id, attempt = await running(first, manager)
            message_id = await said(first, run_id, "hello")
            await gate.reached.wait()
        gate.open.set()
        async with asyncio.timeout(20):
            while await notes(second, run_id, "message_delivered") != [message_id]:
                await asyncio.sleep(0.02)  # polling a condition with a bound
        assert {each["messageId"] for each in attempt.messages} == {message_id}


async def test_a_stop_is_delivered_although_a_reply_keeps_being_refused(replica: Replica, manager: FakeManager) -> None:
    manager.moods["reply"] += [refuse(ErrorCode.PAYLOAD_TOO_LARGE)] * 1000
    run_id = await replica.start()
    (await manager.begun(run_id)).ask()
    await replica.until(run_id, "waiting_user")
    assert (await replica.reply(run_id, "q1", answer="x")).status_code == 200
    await until(lambda: manager.calls["reply"] > 0)
    await replica.stop(run_id)
    await replica.until(run_id, "canceled", within=15)
