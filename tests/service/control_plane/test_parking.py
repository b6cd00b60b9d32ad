"""A run that has waited long for a person gives its place back, and nobody can tell but by its phase."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move, Stop
from control_plane.domain.run import Lease
from control_plane.interactions.expire import ExpireQuestions
from control_plane.storage.parking import ParkingStore
from control_plane.storage.run_log import Write
from shared.contracts.events import AttemptLost
from shared.contracts.interactions import Reply
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode, RunyardError
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, frame, replica_at, soon
from tests.service.control_plane.fake_manager import FakeAttempt, FakeExecutor, FakeManager, Gate, refuse

SOON = 0.3
UNHEARD = refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=None)
LOST = Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent"))


def question(number: int, name: str) -> Any:
    return frame(number, "interaction.requested", f'{{"questionId":"{name}","type":"question","prompt":"?"}}')


# ---- the wish, in Postgres ----


async def waiting(stores: Stores, *questions: str, session: bool = True) -> Lease:
    """A run whose engine asked a minute ago."""
    lease = await stores.started()
    frames = [frame(1, "session.started", '{"engineSession":"s-1"}')] if session else []
    frames += [question(number, name) for number, name in enumerate(questions or ("q1",), 2)]
    await stores.log.write([Write(lease.run_id, frames, lease.token)])
    await stores.pool.execute("UPDATE interactions SET created_at = now() - interval '60 s' WHERE run_id = $1", lease.run_id)
    return lease


async def parked(stores: Stores) -> Lease:
    lease = await waiting(stores)
    ended = frame(9, "attempt.ended", '{"outcome":"parked","activeMs":1}')
    [change] = await stores.log.write([Write(lease.run_id, [ended], lease.token)])
    assert change is not None
    assert change.parked
    return lease


async def test_a_run_is_asked_to_park_once_and_not_before_it_has_waited_long_enough(stores: Stores) -> None:
    parking, lease = ParkingStore(stores.pool), await waiting(stores)
    assert await parking.ask(61) == []
    assert not (await stores.runs.driven(lease.run_id)).is_to_park
    assert await parking.ask(59) == [lease.run_id]
    assert await parking.ask(59) == []
    assert (await stores.runs.driven(lease.run_id)).is_to_park
    assert await stores.runs.with_intents([lease.run_id]) == {lease.run_id}


async def test_of_many_sweepers_one_asks(stores: Stores) -> None:
    lease = await waiting(stores)
    asked = await asyncio.gather(*(ParkingStore(stores.pool).ask(30) for _ in range(5)))
    assert [run_id for each in asked for run_id in each] == [lease.run_id]


async def is_answered(stores: Stores, lease: Lease) -> None:
    assert await stores.interactions.answer(lease.run_id, "q2", Reply(answer="yes"), None)


async def is_asked_again(stores: Stores, lease: Lease) -> None:
    await stores.log.write([Write(lease.run_id, [question(4, "q3")], lease.token)])


async def is_stopped(stores: Stores, lease: Lease) -> None:
    await stores.log.write([Write(lease.run_id, [Stop()])])


async def is_lost(stores: Stores, lease: Lease) -> None:
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])


async def works_again(stores: Stores, lease: Lease) -> None:
    resolved = ['{"questionId":"q1","how":"withdrawn"}', '{"questionId":"q2","how":"withdrawn"}']
    frames = [frame(number, "interaction.resolved", data) for number, data in enumerate(resolved, 4)]
    await stores.log.write([Write(lease.run_id, frames, lease.token)])


@pytest.mark.parametrize("meanwhile", [is_answered, is_asked_again, is_stopped, is_lost, works_again])
async def test_a_run_that_does_not_only_wait_is_not_asked(
    stores: Stores, meanwhile: Callable[[Stores, Lease], Awaitable[None]]
) -> None:
    lease = await waiting(stores, "q1", "q2")
    await meanwhile(stores, lease)
    assert await ParkingStore(stores.pool).ask(30) == []


async def test_a_reply_that_comes_between_the_look_and_the_lock_is_seen(stores: Stores, another_replica: Any) -> None:
    """The sweep has found the run; the reply commits while the sweep has not locked it yet."""
    lease = await waiting(stores, "q1", "q2")

    class Late(ParkingStore):
        """Between its look and its lock somebody else is heard."""

        async def _locked(self, connection: Any, run_ids: list[str]) -> list[str]:
            assert await another_replica().interactions.answer(lease.run_id, "q1", Reply(answer="yes"), None)
            return await super()._locked(connection, run_ids)

    assert await Late(stores.pool).ask(30) == []


async def test_a_run_without_an_engine_session_is_not_asked(stores: Stores) -> None:
    await waiting(stores, session=False)
    assert await ParkingStore(stores.pool).ask(30) == []


@pytest.mark.parametrize(("for_good", "asked_again"), [(False, 1), (True, 0)])
async def test_a_refused_park_is_asked_for_again_unless_it_never_can(stores: Stores, for_good: bool, asked_again: int) -> None:
    parking, lease = ParkingStore(stores.pool), await waiting(stores)
    await parking.ask(30)
    await parking.refused(lease.run_id, 1, for_good)
    assert not (await stores.runs.driven(lease.run_id)).is_to_park
    assert len(await parking.ask(30)) == asked_again


async def test_a_parked_run_is_driven_by_nobody_until_its_reply_and_nothing_counts_as_a_failure(stores: Stores) -> None:
    lease = await parked(stores)
    assert await stores.runs.claim(10, 60) == []
    assert not await stores.runs.renew([lease], 60)
    head = await stores.pool.fetchrow("SELECT failures, crashes, unbegun FROM run_heads WHERE run_id = $1", lease.run_id)
    assert head is not None
    assert tuple(head) == (0, 0, 0)
    assert await stores.interactions.answer(lease.run_id, "q1", Reply(answer="yes"), None)
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == [lease.run_id]


async def test_a_stop_ends_a_parked_run_at_once(stores: Stores) -> None:
    lease = await parked(stores)
    await stores.log.write([Write(lease.run_id, [Stop()])])
    shown = await stores.runs.snapshot(lease.run_id)
    assert shown is not None
    assert shown.status is RunStatus.CANCELED


async def test_a_question_of_a_parked_run_expires_as_ever(stores: Stores) -> None:
    lease = await parked(stores)
    await stores.pool.execute("UPDATE interactions SET expires_at = now() - interval '1 s' WHERE run_id = $1", lease.run_id)
    await ExpireQuestions(stores.interactions, stores.log)()
    shown = await stores.runs.snapshot(lease.run_id)
    assert shown is not None
    assert (shown.status, shown.error_code) == (RunStatus.ERROR, ErrorCode.INTERACTION_EXPIRED)


# ---- carried out, in front of a scripted manager ----


@pytest.fixture
async def replica(database: str, manager_url: str) -> AsyncIterator[Replica]:
    """One that parks soon."""
    async with replica_at(database, manager_url, park_seconds=SOON) as made:
        yield made


async def asking(replica: Replica, manager: FakeManager, **request: Any) -> tuple[str, FakeAttempt]:
    run_id = await replica.start(**request)
    attempt = await manager.begun(run_id)
    attempt.wait()
    return run_id, attempt


def outcomes(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["outcome"] for event in events if event["kind"] == "attempt.ended"]


async def told_once(replica: Replica, manager: FakeManager, run_id: str, answer: str) -> None:
    """The second attempt has the answer, the first one never had it; then the run ends well."""
    first, second = manager.attempts(run_id)
    assert first.replies == {}
    assert answer in second.request["messages"][0]["content"]
    second.end()
    await replica.until(run_id, "success")
    events = await replica.events(run_id)
    resolved = [event["data"] for event in events if event["kind"] == "interaction.resolved"]
    assert [(each["questionId"], each["how"], each["answer"]) for each in resolved] == [("q1", "answered", {"answer": answer})]
    assert outcomes(events) == ["parked", "success"]


async def test_a_run_that_waits_long_is_parked_and_its_reply_starts_the_next_attempt(
    replica: Replica, manager: FakeManager
) -> None:
    run_id, attempt = await asking(replica, manager, retry={"maxAttempts": 1})
    shown = await replica.phase(run_id, "parked")
    assert (shown["status"], [each["questionId"] for each in shown["pendingQuestions"]]) == ("waiting_user", ["q1"])
    assert shown["startedAt"] is not None
    await until(lambda: attempt.released)
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    second = await manager.begun(run_id, 2)
    assert second.request["resumeSessionId"] == "s-1"
    await told_once(replica, manager, run_id, "blue")


async def test_a_parked_run_may_wait_and_park_again(replica: Replica, manager: FakeManager) -> None:
    run_id, _ = await asking(replica, manager)
    for number in (2, 3):
        await replica.phase(run_id, "parked")
        await replica.reply(run_id, f"q{number - 1}", answer="go on")
        again = await manager.begun(run_id, number)
        if number == 2:
            again.wait("q2")
    again.end()
    await replica.until(run_id, "success")
    assert outcomes(await replica.events(run_id)) == ["parked", "parked", "success"]


async def test_a_message_to_a_parked_run_travels_with_its_reply(replica: Replica, manager: FakeManager) -> None:
    run_id, attempt = await asking(replica, manager)
    await replica.phase(run_id, "parked")
    assert (await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": "and be quick"})).status_code == 202
    assert (await replica.show(run_id))["phase"] == "parked"
    await replica.reply(run_id, "q1", answer="blue")
    second = await manager.begun(run_id, 2)
    assert second.request["messages"][0]["content"].endswith("blue\n\nand be quick")
    assert attempt.messages == second.messages == []


async def park_and_lose_the_answer(manager: FakeManager, executor: FakeExecutor, body: dict[str, Any]) -> None:
    [attempt] = executor.attempts.values()
    manager.park(attempt, body["questionIds"])
    raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, "the executor gave no answer", extra={"sent": None})


async def test_a_park_is_told_until_it_was_heard(replica: Replica, manager: FakeManager) -> None:
    manager.moods["park"] += [UNHEARD, UNHEARD, park_and_lose_the_answer]
    run_id, _ = await asking(replica, manager)
    await replica.phase(run_id, "parked")
    assert manager.calls["park"] >= 3
    await replica.reply(run_id, "q1", answer="blue")
    await manager.begun(run_id, 2)
    await told_once(replica, manager, run_id, "blue")


async def test_the_next_driver_goes_on_with_a_park(database: str, manager_url: str, manager: FakeManager) -> None:
    """It never asks for one itself."""
    manager.moods["park"] += [UNHEARD] * 1000
    async with replica_at(database, manager_url, park_seconds=SOON) as replica:
        run_id, _ = await asking(replica, manager)
        await until(lambda: manager.calls["park"] >= 1)
    manager.moods["park"].clear()
    async with replica_at(database, manager_url, park_seconds=0) as replica:
        await replica.phase(run_id, "parked")


async def test_a_run_is_never_parked_where_that_is_switched_off(database: str, manager_url: str, manager: FakeManager) -> None:
    async with replica_at(database, manager_url, park_seconds=0) as off:
        run_id, _ = await asking(off, manager)
        await off.until(run_id, "waiting_user")
        looked = manager.calls["renew"]
        await until(lambda: manager.calls["renew"] >= looked + 4)  # several sweeps long
        assert manager.calls["park"] == 0
        async with replica_at(database, manager_url, park_seconds=SOON) as on:
            await on.phase(run_id, "parked")


# ---- races ----


async def test_a_reply_accepted_while_the_park_is_on_its_way_is_told_to_the_next_attempt(
    replica: Replica, manager: FakeManager
) -> None:
    gate = Gate()
    manager.moods["park"].append(gate)
    run_id, _ = await asking(replica, manager)
    await gate.reached.wait()
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    gate.open.set()
    await manager.begun(run_id, 2)
    await told_once(replica, manager, run_id, "blue")
    assert "parked" not in {event["data"].get("phase") for event in await replica.events(run_id)}


async def test_a_reply_accepted_before_the_park_was_heard_goes_to_the_living_engine(
    replica: Replica, manager: FakeManager
) -> None:
    manager.moods["park"] += [UNHEARD] * 1000
    run_id, attempt = await asking(replica, manager)
    await until(lambda: manager.calls["park"] >= 1)
    assert (await replica.reply(run_id, "q1", answer="blue")).status_code == 200
    await until(lambda: bool(attempt.replies))
    manager.moods["park"].clear()
    attempt.say("interaction.resolved", {"questionId": "q1", "how": "answered", "answer": {"answer": "blue"}})
    await replica.until(run_id, "running")
    attempt.ask("q2")
    await replica.phase(run_id, "parked")
    assert (await replica.show(run_id))["pendingQuestions"][0]["questionId"] == "q2"
    assert attempt.replies.keys() == {"q1"}


async def test_an_engine_that_was_answered_at_the_last_moment_works_on(replica: Replica, manager: FakeManager) -> None:
    """Its executor says no, and the park is forgotten until it waits again."""
    gate = Gate()
    manager.moods["park"].append(gate)
    run_id, attempt = await asking(replica, manager)
    await gate.reached.wait()
    attempt.say("interaction.resolved", {"questionId": "q1", "how": "withdrawn"})
    await replica.until(run_id, "running")
    gate.open.set()
    attempt.end()
    await replica.until(run_id, "success")
    assert outcomes(await replica.events(run_id)) == ["success"]


async def test_an_executor_that_cannot_park_is_asked_once(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    manager.moods["park"].append(refuse(ErrorCode.CAPABILITY_UNAVAILABLE))
    run_id, attempt = await asking(replica, manager)
    await until(lambda: manager.calls["park"] == 1)
    await soon(lambda: stores.pool.fetchval("SELECT parking = 'refused' FROM attempts WHERE run_id = $1", run_id))
    assert (await replica.show(run_id))["phase"] == "waiting_user"
    attempt.end()
    await replica.until(run_id, "success")


async def test_a_stop_at_once_with_the_park_ends_the_run_once(replica: Replica, manager: FakeManager) -> None:
    gate = Gate()
    manager.moods["park"].append(gate)
    run_id, _ = await asking(replica, manager)
    await gate.reached.wait()
    assert (await replica.stop(run_id)).json()["status"] == "stopping"
    gate.open.set()
    shown = await replica.until(run_id, "canceled")
    assert shown["errorCode"] == "user_canceled"
    events = await replica.events(run_id)
    assert outcomes(events) == ["parked"]
    assert [event["data"]["status"] for event in events if event["kind"] == "run.status"][-2:] == ["stopping", "canceled"]
    assert len(manager.attempts(run_id)) == 1
