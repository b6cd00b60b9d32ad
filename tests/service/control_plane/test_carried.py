"""What travels with a start: every accepted reply is told to an engine, or its run says that it was not, whatever dies."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from control_plane.storage.run_log import Write
from shared.contracts.interactions import Reply
from tests.loopback import until
from tests.service.control_plane.conftest import PLACE, Replica, Stores, replica_at
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager
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
