"""Windows of news against a real database: all or nothing, in order, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from uuid import uuid4

import asyncpg
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Move, Stop
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease, Overdue, Placement
from control_plane.runs.record import WINDOW_BYTES, WINDOW_ROWS, LeaseLost, Recorder
from control_plane.storage.run_log import Refused, RunLog, Write
from shared.contracts.interactions import InteractionStatus, Reply
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode, RunyardError
from tests.service.control_plane.conftest import PLACE, Stores, frame, new_run, running

ENDED = '{"outcome":"success","activeMs":1,"result":"done"}'
QUESTION = '{"questionId":"q1-1","type":"question","prompt":"which?"}'


async def test_a_run_is_claimed_by_one_replica_only(stores: Stores, another_replica: Callable[[], Stores]) -> None:
    for _ in range(20):
        await stores.runs.create(new_run(), None)
    claims = await asyncio.gather(*(each.runs.claim(5, 60) for each in (stores, another_replica()) for _ in range(4)))
    claimed = [lease.run_id for leases in claims for lease in leases]
    assert len(claimed) == len(set(claimed)) == 20


async def test_a_lapsed_lease_is_taken_over_and_its_old_holder_writes_nothing(stores: Stores) -> None:
    old = await stores.started()
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 second'")
    [new] = await stores.runs.claim(10, 60)
    assert new.run_id == old.run_id
    assert await stores.log.write([Write(old.run_id, [frame(1)], old.token)]) == [None]
    assert (await stores.log.write([Write(old.run_id, [frame(1)], new.token)]))[0] is not None
    assert await stores.runs.renew([old], 60) == set()
    assert await stores.runs.renew([new], 60) == {new.run_id}


async def test_a_lapsed_lease_that_nobody_took_is_renewed(stores: Stores) -> None:
    lease = await stores.started()
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 hour'")
    assert await stores.runs.renew([lease], 60) == {lease.run_id}


async def test_a_session_runs_one_at_a_time_in_the_order_its_runs_came(stores: Stores) -> None:
    first = await stores.runs.create(new_run(session_id="s"), None)
    second = await stores.runs.create(new_run(session_id="s"), None)
    other = await stores.runs.create(new_run(session_id="s", app_id="another"), None)
    assert {lease.run_id for lease in await stores.runs.claim(10, 60)} == {first, other}
    await stores.log.write([Write(first, [Stop()])])
    assert await stores.runs.claim(10, 60) == []
    await stores.log.write([Write(first, [Move(Signal.STOPPED)])])
    assert [lease.run_id for lease in await stores.runs.claim(10, 60)] == [second]


async def test_priority_goes_first_and_age_decides_among_equals(stores: Stores) -> None:
    order = [await stores.runs.create(new_run(priority=priority), None) for priority in (0, 5, 0)]
    claimed = [lease.run_id for _ in range(3) for lease in await stores.runs.claim(1, 60)]
    assert claimed == [order[1], order[0], order[2]]


async def test_events_raw_output_and_status_are_one_transaction(stores: Stores) -> None:
    lease = await stores.started()
    news = [
        frame(1, "log", '{"stream":"stdout","byteFrom":0,"base64":"aGVsbG8="}'),
        frame(2, "session.started", '{"engineSession":"s-1"}'),
        frame(3),
        frame(4, "attempt.ended", ENDED),
    ]
    [change] = await stores.log.write([Write(lease.run_id, news, lease.token)])
    assert change is not None
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert (row.status, row.engine_session, row.last_cursor, row.claimed) == (RunStatus.SUCCESS, "s-1", 6, False)
    assert await stores.events.raw_range(lease.run_id, 1, "stdout", 1, 4) == b"ell"
    assert await stores.kinds(lease.run_id) == [
        "run.status", "run.status", "session.started", "message.completed", "attempt.ended", "run.status",
    ]  # fmt: skip


async def test_a_window_written_twice_is_stored_once(stores: Stores) -> None:
    lease = await stores.started()
    window = [Write(lease.run_id, [frame(1), frame(2)], lease.token)]
    await stores.log.write(window)
    await stores.log.write(window)
    events = await stores.events.page(lease.run_id, 0, 100)
    assert [event.cursor for event in events] == [1, 2, 3, 4]


async def test_one_refused_run_does_not_hold_up_the_others(stores: Stores) -> None:
    bad, good = await stores.started(), await stores.started()
    poison = frame(1, "log", '{"stream":"stdout","byteFrom":0,"base64":"%%%"}')
    recorder = Recorder(stores.log)
    async with running(recorder.run()):
        results = await asyncio.gather(recorder.record(bad, [poison]), recorder.record(good, [frame(1)]), return_exceptions=True)
    assert isinstance(results[0], Refused)
    assert await stores.kinds(good.run_id) == ["run.status", "run.status", "message.completed"]
    assert not isinstance(results[1], BaseException)


class CountedLog(RunLog):
    """Knows how many rows, and bytes of them, each of its transactions held."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool, on_commit=[])
        self.windows: list[int] = []
        self.bytes: list[int] = []

    async def write(self, writes: Sequence[Write]) -> list[Change | None]:
        self.bytes.append(sum(len(news.data) for each in writes for news in each.news if isinstance(news, FromExecutor)))
        self.windows.append(sum(len(each.news) for each in writes))
        return await super().write(writes)


async def test_many_runs_share_windows_and_keep_their_own_order(stores: Stores) -> None:
    runs, records, rows = 40, 8, 10  # at any moment more news than a window takes
    leases = [await stores.started() for _ in range(runs)]
    log = CountedLog(stores.pool)
    recorder = Recorder(log)

    async def feed(lease: Lease) -> None:
        for record in range(records):
            await recorder.record(lease, [frame(record * rows + row) for row in range(1, rows + 1)])

    async with running(recorder.run()):
        await asyncio.gather(*map(feed, leases))
    for lease in leases:
        cursors = [event.cursor for event in await stores.events.page(lease.run_id, 0, 1000)]
        assert cursors == list(range(1, records * rows + 3))
    assert sum(log.windows) == runs * records * rows
    assert max(log.windows) <= WINDOW_ROWS
    assert len(log.windows) < runs * records / 4, "one transaction is for many runs"


async def test_what_is_large_shares_no_window_that_would_take_too_long(stores: Stores) -> None:
    sizes = [WINDOW_BYTES // 4] * 9 + [WINDOW_BYTES + 1]
    leases = [await stores.started() for _ in sizes]
    log = CountedLog(stores.pool)
    recorder = Recorder(log)
    large = [frame(1, data=json.dumps({"text": "x" * size})) for size in sizes]
    async with running(recorder.run()):
        await asyncio.gather(*(recorder.record(lease, [said]) for lease, said in zip(leases, large, strict=True)))
    assert sum(log.windows) == len(sizes)
    *shared, alone = sorted(log.bytes)
    assert max(shared) <= WINDOW_BYTES < alone, "only what is too large by itself is written beyond the bound"
    for lease in leases:
        assert (await stores.kinds(lease.run_id))[-1] == "message.completed"


async def test_a_writer_whose_lease_is_gone_is_told_so(stores: Stores) -> None:
    lease = await stores.started()
    recorder = Recorder(stores.log)
    async with running(recorder.run()):
        with pytest.raises(LeaseLost):
            await recorder.record(Lease(lease.run_id, uuid4()), [frame(1)])


async def test_a_question_waits_is_answered_once_and_is_delivered(stores: Stores) -> None:
    lease = await stores.started()
    await stores.log.write([Write(lease.run_id, [frame(1, "interaction.requested", QUESTION)], lease.token)])
    answers = await asyncio.gather(*(
        stores.interactions.answer(lease.run_id, "q1-1", Reply(answer=f"answer {n}"), None) for n in range(20)
    ))  # fmt: skip
    assert sorted(answers) == [False] * 19 + [True]
    assert [each.question_id for each in await stores.interactions.answered(lease.run_id)] == ["q1-1"]
    assert await stores.runs.with_intents([lease.run_id]) == {lease.run_id}
    resolved = frame(2, "interaction.resolved", '{"questionId":"q1-1","how":"answered","answer":{}}')
    await stores.log.write([Write(lease.run_id, [resolved], lease.token)])
    question = await stores.interactions.one(lease.run_id, "q1-1")
    assert question is not None
    assert question.status is InteractionStatus.DELIVERED
    assert await stores.runs.with_intents([lease.run_id]) == set()


async def test_a_parked_run_rests_until_its_reply_wakes_it(stores: Stores) -> None:
    lease = await stores.started()
    await stores.log.write([Write(lease.run_id, [frame(1, "interaction.requested", QUESTION)], lease.token)])
    lost = frame(2, "attempt.ended", '{"outcome":"lost","errorCode":"executor_lost","activeMs":1}')
    await stores.log.write([Write(lease.run_id, [lost], lease.token)])
    assert await stores.runs.claim(10, 60) == []
    assert await stores.interactions.answer(lease.run_id, "q1-1", Reply(answer="yes"), None)
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == [lease.run_id]


async def test_active_time_is_settled_and_waiting_does_not_count(stores: Stores) -> None:
    lease = await stores.started()
    started = '{"executorId":"e","instance":"i","provider":"scripted","sandbox":"s","timeouts":{"runMs":60000},"resumed":false}'
    await stores.log.write([Write(lease.run_id, [frame(1, "attempt.started", started)], lease.token)])
    await stores.pool.execute("UPDATE agent_runs SET active_since = now() - interval '10 seconds'")
    await stores.log.write([Write(lease.run_id, [frame(2, "interaction.requested", QUESTION)], lease.token)])
    left, since = await stores.pool.fetchrow("SELECT active_ms_left, active_since FROM agent_runs") or (0, 0)
    assert 40_000 < left <= 50_000
    assert since is None
    assert await stores.runs.overdue(0, 60) == {}


async def test_a_run_that_nobody_could_ever_run_times_out_in_the_queue(stores: Stores) -> None:
    young, old = await stores.runs.create(new_run(), None), await stores.runs.create(new_run(), None)
    await stores.pool.execute("UPDATE agent_runs SET created_at = now() - interval '2 hours' WHERE id = $1", old)
    assert await stores.runs.overdue(10, 3600) == {old: Overdue(RunStatus.QUEUED, 0, "an executor")}
    await stores.log.write([Write(old, [Stop(ErrorCode.TIMEOUT)])])
    row = await stores.runs.snapshot(old)
    assert row is not None
    assert (row.status, row.error_code) == (RunStatus.TIMEOUT, "timeout")
    assert await stores.runs.overdue(10, 3600) == {}
    assert [lease.run_id for lease in await stores.runs.claim(10, 60)] == [young]


async def test_what_a_run_waited_for_in_vain_is_told_apart(stores: Stores) -> None:
    workspace = {"workspace_key": "ws"}
    earlier = await stores.runs.create(new_run(**workspace), None)
    [lease] = await stores.runs.claim(10, 60)
    await stores.runs.next_attempt(lease, PLACE)
    await stores.log.write([Write(earlier, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
    later, alone = await stores.runs.create(new_run(**workspace), None), await stores.runs.create(new_run(), None)
    await stores.pool.execute("UPDATE agent_runs SET created_at = created_at - interval '2 hours'")
    assert await stores.runs.overdue(10, 3600) == {
        later: Overdue(RunStatus.QUEUED, 0, "an earlier run in its workspace"),
        alone: Overdue(RunStatus.QUEUED, 0, "an executor"),
    }


async def test_the_same_idempotency_key_makes_one_run(stores: Stores) -> None:
    from control_plane.domain.run import IdempotencyKey

    key = IdempotencyKey("k", b"1" * 32)
    made = await asyncio.gather(*(stores.runs.create(new_run(), key) for _ in range(20)))
    assert len(set(made)) == 1
    assert await stores.runs.queued(100) == 1
    with pytest.raises(RunyardError) as refused:
        await stores.runs.create(new_run(), IdempotencyKey("k", b"2" * 32))
    assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT


async def test_a_withdrawn_attempt_leaves_no_trace_and_its_number_is_used_again(stores: Stores) -> None:
    await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    assert await stores.runs.next_attempt(lease, PLACE) == 1
    await stores.runs.withdraw_attempt(lease, 1)
    assert await stores.runs.next_attempt(lease, Placement("executor-2", "i", "u")) == 1


async def test_no_attempt_is_written_for_a_run_that_is_to_stop(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    [lease] = await stores.runs.claim(1, 60)
    await stores.log.write([Write(run_id, [Stop()])])
    assert await stores.runs.next_attempt(lease, PLACE) is None


async def test_the_terminal_event_carries_what_the_snapshot_says(stores: Stores) -> None:
    lease = await stores.started()
    failed = '{"outcome":"error","errorCode":"auth_failed","errorMessage":"401","exitCode":1,"activeMs":1,"stderrTail":"no"}'
    await stores.log.write([Write(lease.run_id, [frame(1, "attempt.ended", failed)], lease.token)])
    row = await stores.runs.snapshot(lease.run_id)
    last = json.loads((await stores.events.page(lease.run_id, 0, 100))[-1].data)
    assert row is not None
    assert (last["errorCode"], last["errorMessage"], last["exitCode"]) == (row.error_code, row.error_message, row.exit_code)
    assert (row.status, row.retryable) == (RunStatus.ERROR, False)


async def test_a_parked_run_that_nobody_can_go_on_with_times_out_after_its_last_reply(stores: Stores) -> None:
    lease = await stores.started()
    for number, question in enumerate(("q1-1", "q1-2"), 1):
        asked = frame(number, "interaction.requested", QUESTION.replace("q1-1", question))
        await stores.log.write([Write(lease.run_id, [asked], lease.token)])
    lost = frame(3, "attempt.ended", '{"outcome":"lost","errorCode":"executor_lost","activeMs":1}')
    await stores.log.write([Write(lease.run_id, [lost], lease.token)])
    long_ago = "UPDATE interactions SET answered_at = now() - interval '2 hours' WHERE answered_at IS NOT NULL"
    await stores.interactions.answer(lease.run_id, "q1-1", Reply(answer="yes"), None)
    await stores.pool.execute(long_ago)
    assert await stores.runs.overdue(10, 3600) == {}  # somebody may yet answer the other one: it has an expiry of its own
    await stores.interactions.answer(lease.run_id, "q1-2", Reply(answer="yes"), None)
    assert await stores.runs.overdue(10, 3600) == {}
    await stores.pool.execute(long_ago)
    assert await stores.runs.overdue(10, 3600) == {lease.run_id: Overdue(RunStatus.WAITING_USER, 1, "an executor")}
    await stores.log.write([Write(lease.run_id, [Stop(ErrorCode.TIMEOUT)])])
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert (row.status, row.error_code) == (RunStatus.TIMEOUT, "timeout")
    assert await stores.runs.overdue(10, 3600) == {}
