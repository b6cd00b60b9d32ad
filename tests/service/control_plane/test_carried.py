"""What travels with a start: every accepted reply is told to an engine, or its run says that it was not, whatever dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control_plane.domain.placing import GO_ON
from control_plane.storage.run_log import Write
from shared.contracts.interactions import Reply
from shared.errors import ErrorCode
from tests.loopback import until
from tests.service.control_plane.conftest import PLACE, Replica, Stores, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager, lose_the_call, refuse
from tests.service.control_plane.test_races import LOST as SILENT
from tests.service.control_plane.test_races import asked

LOST = {"outcome": "lost", "errorCode": "executor_lost", "errorMessage": "gone", "result": None}


async def parked(replica: Replica, manager: FakeManager, *questions: str, **request: Any) -> str:
    """A run whose executor died while its engine waited for a person."""
    run_id = await replica.start(**request)
    attempt = await manager.begun(run_id)
    attempt.say("session.started", {"engineSession": "e-1"})
    for question in questions or ("q1",):
        attempt.ask(question)
    await replica.until(run_id, "waiting_user")
    attempt.end(**LOST)
    await replica.phase(run_id, "parked")
    await until(lambda: attempt.released)
    return run_id


def told(attempt: FakeAttempt) -> str:
    """What its engine was told with its start."""
    return "\n".join(each["content"] for each in attempt.request["messages"])


async def fate(stores: Stores, run_id: str) -> dict[str, str]:
    rows = await stores.pool.fetch("SELECT question_id, status FROM interactions WHERE run_id = $1", run_id)
    return {row["question_id"]: row["status"] for row in rows}


async def undeliverable(replica: Replica, run_id: str) -> list[str]:
    """The replies that readers were told to have reached nobody."""
    found = [each["data"] for each in await replica.events(run_id) if each["kind"] == "diagnostic"]
    return [each["message"].split(":")[0] for each in found if each["code"] == "reply_undeliverable"]


class TakenUnheard:
    """The executor begins the attempt, and whoever asked it to is gone before its answer."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self, manager: FakeManager, executor: FakeExecutor, body: dict[str, Any]) -> None:
        manager.accept(executor, body)
        self.reached.set()
        await asyncio.sleep(3600)  # as long as the caller lives


async def test_a_reply_that_came_after_a_start_is_not_taken_for_one_that_travelled_with_it(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    start = TakenUnheard()
    async with replica_at(database, manager_url) as one:
        run_id = await parked(one, manager, "q1", "q2")
        manager.moods["start"].append(start)
        assert (await one.reply(run_id, "q1", answer="first")).status_code == 200
        await asyncio.wait_for(start.reached.wait(), 10)
    assert await stores.interactions.answer(run_id, "q2", Reply(answer="second"), "ann")
    async with replica_at(database, manager_url) as two:
        await two.until(run_id, "running")
        second = manager.attempts(run_id)[-1]
        assert "first" in told(second)
        assert "second" not in json.dumps(second.request)
        assert await fate(stores, run_id) == {"q1": "delivered", "q2": "withdrawn"}
        assert await undeliverable(two, run_id) == ["q2"]
        second.end()
        await two.until(run_id, "success")


async def test_a_start_that_is_placed_again_takes_the_replies_that_came_meanwhile(stores: Stores) -> None:
    lease = await asked(stores, "q1", "q2")
    carried: list[list[str]] = []
    for question in ("q1", "q2"):
        await stores.interactions.answer(lease.run_id, question, Reply(answer="yes"), None)
        await stores.log.write([Write(lease.run_id, [SILENT], lease.token)])  # the second time it changes nothing
        assert await stores.runs.next_attempt(lease, PLACE) == 2
        carried.append([each.question_id for each in await stores.interactions.carried(lease.run_id, 2)])
        await stores.runs.withdraw_attempt(lease, 2)
    assert carried == [["q1"], ["q1", "q2"]]


# ---- a further attempt ----


def resolved(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    told = [each["data"] for each in events if each["kind"] == "interaction.resolved"]
    return [(each["questionId"], each["how"]) for each in told]


@pytest.mark.parametrize("end", [{"outcome": "error", "errorCode": "engine_start_failed", "result": None}, LOST])
async def test_what_travelled_with_a_start_of_which_nothing_came_is_told_again(
    replica: Replica, manager: FakeManager, stores: Stores, end: dict[str, Any]
) -> None:
    run_id = await parked(replica, manager, retry={"afterSideEffects": True})
    assert (await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "and hurry"})).status_code == 202
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    second = await manager.begun(run_id, 2)
    await replica.until(run_id, "running")
    second.end(**end)
    third = await manager.begun(run_id, 3)
    assert third.request["resumeSessionId"] == "e-1"
    assert told(third) == told(second)
    assert told(third).endswith("blue\n\nand hurry")
    third.end()
    await replica.until(run_id, "success")
    assert third.messages == []
    assert resolved(await replica.events(run_id)) == [("q1", "answered")]
    assert await fate(stores, run_id) == {"q1": "delivered"}


async def test_what_an_engine_has_worked_with_is_not_told_again(replica: Replica, manager: FakeManager) -> None:
    run_id = await parked(replica, manager, retry={"afterSideEffects": True})
    await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "and hurry"})
    await replica.reply(run_id, "q1", answer="blue")
    second = await manager.begun(run_id, 2)
    second.say("message.completed", {"text": "blue it is"})
    second.end(**LOST)
    third = await manager.begun(run_id, 3)
    assert told(third) == GO_ON
    third.end()
    await replica.until(run_id, "success")


async def test_a_reply_outlives_a_start_that_was_refused_for_now(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    run_id = await parked(replica, manager, "q1", "q2", retry={"afterSideEffects": True})
    manager.moods["start"].append(refuse(ErrorCode.ENGINE_START_FAILED))
    await replica.reply(run_id, "q1", answer="blue")
    third = await manager.begun(run_id, 2)
    assert third.number == 3
    assert "blue" in told(third)
    third.end()
    await replica.until(run_id, "success")
    assert await fate(stores, run_id) == {"q1": "delivered", "q2": "withdrawn"}
    assert await undeliverable(replica, run_id) == []


# ---- a run that ends first ----


async def is_stopped(replica: Replica, _attempt: FakeAttempt, run_id: str) -> None:
    await replica.stop(run_id)


async def fails(_replica: Replica, attempt: FakeAttempt, _run_id: str) -> None:
    attempt.end(outcome="error", errorCode="network_error", result=None)


async def succeeds(_replica: Replica, attempt: FakeAttempt, _run_id: str) -> None:
    attempt.end()


@pytest.mark.parametrize("ends", [is_stopped, fails, succeeds])
async def test_a_run_that_ends_first_tells_of_the_reply_it_left(
    replica: Replica, manager: FakeManager, ends: Callable[[Replica, FakeAttempt, str], Awaitable[None]]
) -> None:
    manager.moods["reply"] += [lose_the_call] * 1000
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask("q1")
    attempt.ask("q2")
    await replica.until(run_id, "waiting_user")
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    await ends(replica, attempt, run_id)
    await replica.until(run_id, "canceled", "error", "success")
    assert await undeliverable(replica, run_id) == ["q1"]
    assert resolved(await replica.events(run_id)) == [("q1", "withdrawn"), ("q2", "withdrawn")]


async def test_a_reply_is_told_of_when_the_wait_for_the_next_attempt_is_ended(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    """Between two attempts nobody is asked anything, and its reply waits all the same."""
    manager.moods["reply"] += [lose_the_call] * 1000
    run_id = await replica.start(retry={"afterSideEffects": True})
    attempt = await manager.begun(run_id)
    attempt.ask("q1")
    await replica.until(run_id, "waiting_user")
    await replica.reply(run_id, "q1", answer="blue")
    attempt.end(outcome="error", errorCode="rate_limited", retryAfterMs=30_000, result=None)
    await replica.until(run_id, "running")
    assert await fate(stores, run_id) == {"q1": "answered"}
    assert (await replica.stop(run_id)).json()["status"] == "canceled"
    assert await undeliverable(replica, run_id) == ["q1"]
    assert await fate(stores, run_id) == {"q1": "withdrawn"}


# ---- an engine that goes on without the newest files ----


async def test_a_run_that_begins_again_elsewhere_is_told_what_its_engines_had_taken(
    replica: Replica, manager: FakeManager
) -> None:
    run_id = await replica.start(prompt="do it", retry={"afterSideEffects": True})
    first = await manager.begun(run_id)
    first.say("session.started", {"engineSession": "e-1"})
    for question, type, reply in (("q1", "question", {"answer": "blue"}), ("q2", "permission", {"decision": "accept"})):
        first.ask(question, type)
        await replica.until(run_id, "waiting_user")
        await replica.reply(run_id, question, **reply)
        await until(lambda question=question: question in first.replies)
        first.say("interaction.resolved", {"questionId": question, "how": "answered", "answer": reply})
        await replica.until(run_id, "running")
    await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "NOT IN PRODUCTION"})
    async with asyncio.timeout(10):
        while "message_delivered" not in json.dumps(await replica.events(run_id)):
            await asyncio.sleep(0.02)  # polling a condition with a bound
    first.end(**LOST)
    second = await manager.begun(run_id, 2)
    assert told(second) == GO_ON
    request, said = second.request["otherwise"]["messages"]
    assert request["content"] == "do it"
    assert said["content"] == "You asked: which?\nThe answer: blue\n\nNOT IN PRODUCTION"
    second.end()
    await replica.until(run_id, "success")
