"""Whose turn it is in a workspace, and what a run goes on with when its turn comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from control_plane.domain.line import Caps
from control_plane.domain.news import Stop
from control_plane.domain.run import IdempotencyKey
from control_plane.runs.interrupt import InterruptSession
from control_plane.storage.queries import load
from control_plane.storage.run_log import Write
from control_plane.storage.runs import WORKSPACE_RUNS, RunStore
from shared.contracts.runs import OnSessionBusy
from shared.errors import ErrorCode, RunyardError
from tests.service.control_plane.conftest import Replica, Stores, new_run
from tests.service.control_plane.fake_manager import FakeManager
from tests.service.control_plane.test_busy_workspaces import CAPPED, RESUMES, UNCAPPED, accepted, claimed, over, with_session


async def put_the_clock_back(stores: Stores) -> None:
    """As if the database's clock had been an hour ahead until now."""
    await stores.pool.execute("UPDATE agent_runs SET created_at = created_at + interval '1 hour'")


@pytest.mark.parametrize("caps", [UNCAPPED, CAPPED], ids=["uncapped", "capped"])
async def test_a_workspace_keeps_its_order_when_the_clock_is_put_back(stores: Stores, caps: Caps) -> None:
    runs = RunStore(stores.pool, caps=caps)
    await stores.runs.create(new_run(**RESUMES), None)
    [lease] = await runs.claim(100, 60)
    await accepted(stores, lease)
    await put_the_clock_back(stores)
    second, third = [await stores.runs.create(new_run(f"run_{name}", **RESUMES), None) for name in "zy"]
    assert (await claimed(runs), await stores.runs.interrupted(None)) == ([], [])
    await over(stores, lease)
    [lease] = await runs.claim(100, 60)
    assert lease.run_id == second
    await over(stores, lease)
    assert await claimed(runs) == [third]


async def test_an_interrupt_finds_the_runs_before_it_though_the_clock_was_put_back(stores: Stores) -> None:
    first = await stores.runs.create(new_run(**RESUMES), None)
    await put_the_clock_back(stores)
    newest = await stores.runs.create(new_run(**RESUMES, on_session_busy=OnSessionBusy.INTERRUPT), None)
    assert await stores.runs.interrupted(newest) == [(first, newest)]
    await InterruptSession(stores.runs, stores.log)(newest)
    assert await claimed(stores.runs) == [newest]


# ---- what it goes on with ----


async def leave_the_workspace(stores: Stores, run_id: str, workspace_key: str) -> None:
    """As a session could before workspaces took turns."""
    await stores.pool.execute("UPDATE run_requests SET workspace_key = $2 WHERE run_id = $1", run_id, workspace_key)


async def canceled_in_the_queue(stores: Stores, run_id: str, workspace_key: str, hours_ago: float) -> None:
    """A run of session s that never began."""
    await stores.runs.create(new_run(run_id, session_id="s"), None)
    await stores.log.write([Write(run_id, [Stop(ErrorCode.USER_CANCELED)])])
    await leave_the_workspace(stores, run_id, workspace_key)
    await stores.pool.execute(
        "UPDATE agent_runs SET created_at = created_at - make_interval(secs => $2) WHERE id = $1", run_id, hours_ago * 3600
    )


async def test_a_session_that_has_left_a_workspace_goes_on_where_its_newest_run_worked(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    newest = await with_session(replica, manager, sessionId="s")
    await leave_the_workspace(stores, newest, "new")
    await canceled_in_the_queue(stores, "run_old", "old", hours_ago=1)
    attempt = await manager.begun(await replica.start(sessionId="s"))
    assert (attempt.request["workspace"]["key"], attempt.request["resumeSessionId"]) == ("new", "e-0")


async def test_no_run_takes_an_engine_session_to_another_workspace(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    origin = await with_session(replica, manager, sessionId="s")
    await leave_the_workspace(stores, origin, "old")
    await canceled_in_the_queue(stores, "run_new", "new", hours_ago=0)
    attempt = await manager.begun(await replica.start(sessionId="s"))
    assert (attempt.request["workspace"]["key"], attempt.request.get("resumeSessionId")) == ("new", None)


@pytest.mark.parametrize(("said", "goes_on_with"), [("e-2", "e-2"), (None, "e-0")], ids=["its newest", "what it began with"])
async def test_who_waited_for_a_run_goes_on_with_what_that_left(
    replica: Replica, manager: FakeManager, said: str | None, goes_on_with: str
) -> None:
    origin = await with_session(replica, manager)
    first = await replica.start(resumeRunId=origin)
    attempt = await manager.begun(first)
    attempt.say("session.started", {"engineSession": "e-1"})
    await replica.until_so(first, lambda shown: shown["resumeSessionId"] == "e-1")
    second = await replica.start(resumeRunId=first)
    attempt.end(outcome="error", errorCode="rate_limited", retryAfterMs=100, result=None)  # nothing was done: e-1 is forgotten
    attempt = await manager.begun(first, 2)
    if said is not None:
        attempt.say("session.started", {"engineSession": said})
    attempt.end()
    attempt = await manager.begun(second)
    assert attempt.request["resumeSessionId"] == goes_on_with
    attempt.end()
    await replica.until(second, "success")


async def test_who_named_an_engine_session_keeps_to_it_whatever_came_before(replica: Replica, manager: FakeManager) -> None:
    await with_session(replica, manager)
    first, second = [await replica.start(resumeSessionId="e-0") for _ in range(2)]
    attempt = await manager.begun(first)
    attempt.say("session.started", {"engineSession": "e-1"})
    attempt.end()
    attempt = await manager.begun(second)
    assert attempt.request["resumeSessionId"] == "e-0"


@pytest.mark.parametrize("name", ["session_workspace", "session_tail", "follow"])
async def test_where_a_session_stands_is_read_from_its_newest_runs_only(stores: Stores, name: str) -> None:
    await stores.pool.execute(
        """
        WITH made AS (
            INSERT INTO agent_runs (id, source, session_id, status, created_at, started_at, finished_at, provider)
            SELECT 'r' || n, 'chat', 's' || n % 2, 'success', now() - make_interval(secs => n), now(), now(), 'scripted'
            FROM generate_series(1, 4000) AS n RETURNING id
        ), asked AS (
            INSERT INTO run_requests (run_id, workspace_key, request) SELECT id, 'ses_None_s1', '{}' FROM made
        )
        INSERT INTO attempts (run_id, attempt, executor_id, executor_instance, executor_url, engine_session, ended_at, outcome)
        SELECT id, 1, 'e', 'i', 'u', 'e-' || id, now(), '{}' FROM made
        """
    )
    await stores.pool.execute("ANALYZE agent_runs, run_requests, attempts")
    run_id = await stores.runs.create(new_run(session_id="s1"), None)
    given = (run_id,) if name == "follow" else ("s1", None)
    found = await stores.pool.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) " + load("runs")[name], *given)
    assert max(rows_read(json.loads(found)[0]["Plan"])) < 10


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """Of every step of a plan: what it gave, and what it looked at in vain."""
    yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for step in plan.get("Plans", ()):
        yield from rows_read(step)


# ---- how many wait ----


async def full(stores: Stores, **changes: Any) -> list[str]:
    """A workspace with as many runs as it may have."""
    return [await stores.runs.create(new_run(**changes), None) for _ in range(WORKSPACE_RUNS)]


@pytest.mark.parametrize(("where", "named"), [({"session_id": "s"}, "session s"), (RESUMES, "its workspace")])
async def test_a_workspace_whose_runs_wait_takes_no_more_than_its_share_of_the_line(
    stores: Stores, where: dict[str, Any], named: str
) -> None:
    first, *_ = await full(stores, **where)
    key = IdempotencyKey("k", b"x")
    with pytest.raises(RunyardError, match=named) as refused:
        await stores.runs.create(new_run(**where), key)
    assert (refused.value.code, refused.value.retry_after is not None) == (ErrorCode.QUEUE_FULL, True)
    for elsewhere in ({}, {"session_id": "t"}, {"session_id": "s", "app_id": "shop"}):
        await stores.runs.create(new_run(**elsewhere), None)
    await stores.log.write([Write(first, [Stop(ErrorCode.USER_CANCELED)])])
    made = await stores.runs.create(new_run(**where), key)
    assert await stores.runs.create(new_run(**where), key) == made  # the same start again, though it is full


async def test_a_start_that_interrupts_clears_a_full_workspace(stores: Stores) -> None:
    await full(stores, session_id="s")
    newest = await stores.runs.create(new_run(session_id="s", on_session_busy=OnSessionBusy.INTERRUPT), None)
    await InterruptSession(stores.runs, stores.log)(newest)
    assert await claimed(stores.runs) == [newest]


async def test_however_many_start_at_once_a_workspace_is_not_overfilled(
    stores: Stores, another_replica: Callable[[], Stores]
) -> None:
    await full(stores, session_id="s")
    await stores.pool.execute(
        "UPDATE agent_runs SET status = 'canceled', finished_at = now() WHERE id IN (SELECT id FROM agent_runs LIMIT 3)"
    )
    starts = (each.runs.create(new_run(session_id="s"), None) for each in (stores, another_replica()) * 4)
    answers = await asyncio.gather(*starts, return_exceptions=True)
    assert len([each for each in answers if isinstance(each, str)]) == 3
