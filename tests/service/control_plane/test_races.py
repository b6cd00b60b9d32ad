"""Two writers at once, one of them late: whoever takes the row second must see what the first one did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import asyncpg
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move, Settle, Stop, Told
from control_plane.domain.run import Lease
from control_plane.interactions.expire import ExpireQuestions
from control_plane.runs.record import Recorder
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.run_log import RunLog, Write
from shared.contracts.events import AttemptLost, InteractionResolved
from shared.contracts.interactions import Decision, InteractionStatus, OnExpiry, Reply
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import PLACE, Stores, blocked, frame, new_run, running, soon

LOST = Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent"))


async def asked(stores: Stores, *questions: str, type: str = "question", **run: Any) -> Lease:
    """A run whose engine waits for replies."""
    run_id = await stores.runs.create(new_run(**run), None)
    lease = next(each for each in await stores.runs.claim(100, 60) if each.run_id == run_id)
    await stores.runs.next_attempt(lease, PLACE)
    await stores.log.write([Write(run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
    for number, question in enumerate(questions or ("q1",), 1):
        data = json.dumps({"questionId": question, "type": type, "prompt": "which?"})
        await stores.log.write([Write(run_id, [frame(number, "interaction.requested", data)], lease.token)])
    return lease


async def overdue(stores: Stores) -> None:
    await stores.pool.execute("UPDATE interactions SET expires_at = now() - interval '1 second'")


async def events_of_kind(stores: Stores, run_id: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(each.data) for each in await stores.events.page(run_id, 0, 1000) if each.kind == kind]


async def status_of(stores: Stores, run_id: str) -> RunStatus:
    row = await stores.runs.snapshot(run_id)
    assert row is not None
    return row.status


async def question(stores: Stores, run_id: str, question_id: str = "q1") -> InteractionStatus:
    found = await stores.interactions.one(run_id, question_id)
    assert found is not None
    return found.status


# ---- a reply and a loss ----


@pytest.mark.parametrize("how", ["by_us", "by_the_executor"])
async def test_a_reply_accepted_just_before_the_loss_keeps_the_run_going(stores: Stores, how: str) -> None:
    lease = await asked(stores)
    assert await stores.interactions.answer(lease.run_id, "q1", Reply(answer="yes"), None)
    loss = LOST if how == "by_us" else frame(2, "attempt.ended", '{"outcome":"lost","activeMs":1}')
    [change] = await stores.log.write([Write(lease.run_id, [loss], lease.token)])
    assert change is not None
    assert not change.parked
    assert await stores.runs.renew([lease], 60) == {lease.run_id}
    assert await stores.runs.next_attempt(lease, PLACE) == 2


async def test_one_accepted_reply_of_two_questions_is_enough_not_to_park(stores: Stores) -> None:
    lease = await asked(stores, "q1", "q2")
    assert await stores.interactions.answer(lease.run_id, "q2", Reply(answer="yes"), None)
    [change] = await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    assert change is not None
    assert not change.parked


async def test_a_reply_that_waits_for_the_parking_wakes_the_run(stores: Stores) -> None:
    lease = await asked(stores)
    async with stores.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM run_heads WHERE run_id = $1 FOR UPDATE", lease.run_id)
        loss = asyncio.ensure_future(stores.log.write([Write(lease.run_id, [LOST], lease.token)]))
        await blocked(stores, 1)
        reply = asyncio.ensure_future(stores.interactions.answer(lease.run_id, "q1", Reply(answer="yes"), None))
        await blocked(stores, 2)
    await asyncio.gather(loss, reply)
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == [lease.run_id]


async def test_a_loss_that_was_written_before_is_not_told_twice(stores: Stores) -> None:
    lease = await stores.started()
    for _ in range(2):
        [change] = await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
        assert change is not None
        assert change.attempt_over
    assert len(await events_of_kind(stores, lease.run_id, "attempt.lost")) == 1


async def test_an_end_that_was_written_before_still_ends_the_attendance(stores: Stores) -> None:
    lease = await stores.started()
    lost = frame(1, "attempt.ended", '{"outcome":"lost","activeMs":1}')
    for _ in range(2):
        [change] = await stores.log.write([Write(lease.run_id, [lost], lease.token)])
        assert change is not None
        assert change.attempt_over


# ---- replies that travel with a start ----


async def resumed(stores: Stores, lease: Lease, *told: str) -> None:
    answers = tuple(InteractionResolved(question_id=each, how="answered") for each in told)
    await stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_ACCEPTED), Told(answers)], lease.token)])


async def test_a_reply_that_missed_the_start_is_told_to_be_undeliverable(stores: Stores) -> None:
    lease = await asked(stores, "q1", "q2", "q3")
    await stores.interactions.answer(lease.run_id, "q1", Reply(answer="in time"), None)
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    assert await stores.runs.next_attempt(lease, PLACE) == 2
    await stores.interactions.answer(lease.run_id, "q2", Reply(answer="too late for this start"), None)
    for _ in range(2):  # a commit of unknown outcome is written again
        await resumed(stores, lease, "q1")
    assert [await question(stores, lease.run_id, each) for each in ("q1", "q2", "q3")] == ["delivered", "withdrawn", "withdrawn"]
    assert await stores.runs.with_intents([lease.run_id]) == set()
    assert [each["code"] for each in await events_of_kind(stores, lease.run_id, "diagnostic")] == ["reply_undeliverable"]
    resolved = [each["questionId"] for each in await events_of_kind(stores, lease.run_id, "interaction.resolved")]
    assert resolved == ["q1", "q2", "q3"]
    assert await status_of(stores, lease.run_id) is RunStatus.RUNNING


async def test_a_question_settled_by_us_is_not_resolved_again_by_its_engine(stores: Stores) -> None:
    lease = await asked(stores)
    withdrawn = Settle(InteractionResolved(question_id="q1", how="withdrawn"))
    for _ in range(2):
        await stores.log.write([Write(lease.run_id, [withdrawn])])
    assert await status_of(stores, lease.run_id) is RunStatus.RUNNING
    echo = frame(2, "interaction.resolved", '{"questionId":"q1","how":"withdrawn"}')
    await stores.log.write([Write(lease.run_id, [echo, frame(3)], lease.token)])
    assert len(await events_of_kind(stores, lease.run_id, "interaction.resolved")) == 1
    assert (await stores.kinds(lease.run_id))[-1] == "message.completed"


# ---- expiry ----


class Meanwhile(InteractionStore):
    """Something happens between the look for expired questions and what is done about them."""

    def __init__(self, stores: Stores, what: Callable[[], Any]) -> None:
        super().__init__(stores.pool)
        self._what = what

    async def expired(self) -> list[tuple[str, str, OnExpiry]]:
        found = await super().expired()
        await self._what()
        return found


async def test_a_reply_that_was_accepted_in_time_is_not_expired(stores: Stores) -> None:
    lease = await asked(stores)
    await overdue(stores)

    async def reply() -> None:
        assert await stores.interactions.answer(lease.run_id, "q1", Reply(answer="in time"), None, late=True)

    await ExpireQuestions(Meanwhile(stores, reply), stores.log)()
    assert await question(stores, lease.run_id) is InteractionStatus.ANSWERED
    assert await status_of(stores, lease.run_id) is RunStatus.WAITING_USER


@pytest.mark.parametrize(("type", "on_expiry"), [
    ("permission", OnExpiry.DENY), ("question", OnExpiry.FAIL), ("question", OnExpiry.ANSWER),
])  # fmt: skip
async def test_two_replicas_that_sweep_at_once_do_it_once(stores: Stores, type: str, on_expiry: OnExpiry) -> None:
    expiry_answer = "blue" if on_expiry is OnExpiry.ANSWER else None
    lease = await asked(stores, type=type, on_expiry=on_expiry, expiry_answer=expiry_answer)
    await overdue(stores)
    other = ExpireQuestions(stores.interactions, stores.log)
    await ExpireQuestions(Meanwhile(stores, other), stores.log)()
    resolved = await events_of_kind(stores, lease.run_id, "interaction.resolved")
    if on_expiry is not OnExpiry.FAIL:
        assert await question(stores, lease.run_id) is InteractionStatus.ANSWERED
        assert (await status_of(stores, lease.run_id), resolved) == (RunStatus.WAITING_USER, [])
    else:
        assert (await status_of(stores, lease.run_id), len(resolved)) == (RunStatus.STOPPING, 1)


async def test_one_question_that_cannot_be_expired_holds_up_no_other(stores: Stores) -> None:
    poisoned, good = await asked(stores), await asked(stores)
    await stores.pool.execute(
        "UPDATE agent_runs SET stop_reason = 'odd', stop_requested_at = now() WHERE id = $1", poisoned.run_id
    )
    await overdue(stores)
    await ExpireQuestions(stores.interactions, stores.log)()
    assert await question(stores, good.run_id) is InteractionStatus.EXPIRED


async def test_a_parked_question_that_expires_ends_its_run(stores: Stores) -> None:
    lease = await asked(stores)
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    await overdue(stores)
    await ExpireQuestions(stores.interactions, stores.log)()
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert (row.status, row.error_code) == (RunStatus.ERROR, ErrorCode.INTERACTION_EXPIRED)


async def test_a_parked_permission_that_is_declined_by_expiry_wakes_its_run(stores: Stores) -> None:
    lease = await asked(stores, type="permission", on_expiry=OnExpiry.DENY)
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    await overdue(stores)
    await ExpireQuestions(stores.interactions, stores.log)()
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == [lease.run_id]
    [answered] = await stores.interactions.answered(lease.run_id)
    assert answered.reply.decision is Decision.DECLINE


async def test_a_stop_of_a_parked_run_ends_it_at_once(stores: Stores) -> None:
    lease = await asked(stores)
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    await stores.log.write([Write(lease.run_id, [Stop()])])
    assert await status_of(stores, lease.run_id) is RunStatus.CANCELED
    assert await question(stores, lease.run_id) is InteractionStatus.WITHDRAWN


# ---- a stop and a start ----


async def test_no_attempt_is_written_once_a_stop_it_waited_for_is_there(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    async with stores.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM run_heads WHERE run_id = $1 FOR UPDATE", run_id)
        attempt = asyncio.ensure_future(stores.runs.next_attempt(lease, PLACE))
        await blocked(stores, 1)
        await connection.execute(
            "UPDATE agent_runs SET status = 'stopping', stop_requested_at = now(), stop_reason = 'user_canceled' WHERE id = $1",
            run_id,
        )
    assert await attempt is None
    assert await stores.pool.fetchval("SELECT count(*) FROM attempts") == 0


async def test_an_attempt_is_not_withdrawn_from_under_its_new_driver(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    assert await stores.runs.next_attempt(lease, PLACE) == 1
    async with stores.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE run_heads SET lease_token = gen_random_uuid() WHERE run_id = $1", run_id)
        withdrawal = asyncio.ensure_future(stores.runs.withdraw_attempt(lease, 1))
        await blocked(stores, 1)
    await withdrawal
    assert await stores.pool.fetchrow("SELECT attempt FROM run_heads") == (1,)
    assert await stores.pool.fetchval("SELECT count(*) FROM attempts") == 1


async def test_an_attempt_that_is_accepted_while_a_stop_waits_has_started_its_run(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    await stores.runs.next_attempt(lease, PLACE)
    await stores.log.write([Write(run_id, [Stop()])])
    await stores.log.write([Write(run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
    await stores.log.write([Write(run_id, [frame(1, "attempt.ended", '{"outcome":"canceled","activeMs":1}')], lease.token)])
    row = await stores.runs.snapshot(run_id)
    assert row is not None
    assert row.status is RunStatus.CANCELED
    assert row.started_at is not None


# ---- claims ----


async def test_a_replica_does_not_take_its_own_runs_from_itself(stores: Stores) -> None:
    lease = await stores.started()
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 second'")
    assert await stores.runs.claim(10, 60, driven=[lease.run_id]) == []
    assert await stores.runs.renew([lease], 60) == {lease.run_id}


async def test_a_session_keeps_its_order_when_an_earlier_start_commits_later(stores: Stores, database: str) -> None:
    """The order is that of the commits: whoever sees a later run sees the earlier one too."""
    slow = await asyncpg.connect(database)
    try:
        async with slow.transaction():
            await Stores(cast(Any, OneConnection(slow))).runs.create(new_run("run_first", session_id="s"), None)
            second = asyncio.ensure_future(stores.runs.create(new_run("run_second", session_id="s"), None))
            other = await stores.runs.create(new_run("run_other", session_id="t"), None)
            await asyncio.wait((second,), timeout=0.3)
            assert {each.run_id for each in await stores.runs.claim(10, 60)} == {other}
    finally:
        await slow.close()
    await second
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == ["run_first"]


class OneConnection:
    """A pool that is one connection, inside the transaction of its owner."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    def acquire(self) -> OneConnection:
        return self

    async def __aenter__(self) -> asyncpg.Connection:
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_a_writer_that_froze_in_its_transaction_gives_its_rows_back(stores: Stores) -> None:
    """Else its run could not be claimed for ever, and every replica's renewals would wait for it."""
    lease = await stores.started()
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 second'")
    async with stores.pool.acquire() as frozen:
        await frozen.execute("BEGIN")
        await frozen.execute("SELECT FROM run_heads WHERE run_id = $1 FOR UPDATE", lease.run_id)
        assert await stores.runs.claim(10, 60) == []
        async with asyncio.timeout(10):
            while not (claimed := await stores.runs.claim(10, 60)):
                await asyncio.sleep(0.05)  # polling a condition with a bound
        assert [each.run_id for each in claimed] == [lease.run_id]


async def test_a_transaction_that_was_ended_for_its_silence_is_written_again(stores: Stores) -> None:
    """It says nothing about the rows: the run must not be ended for it."""
    lease = await stores.started()

    class Slow(RunLog):
        async def _write(self, connection: Any, writes: Any) -> Any:
            if not pauses:
                pauses.append(True)
                await connection.execute("SELECT 1")
                gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1"
                await soon(lambda: stores.pool.fetchval(gone, connection.get_server_pid()))
            return await super()._write(connection, writes)

    pauses: list[bool] = []
    recorder = Recorder(Slow(stores.pool, on_commit=[lambda _: None]))
    async with running(recorder.run()):
        change = await recorder.record(lease, [frame(1)])
    assert [each.kind for each in change.events] == ["message.completed"]


# ---- what an executor of another version, or a broken one, may say ----
