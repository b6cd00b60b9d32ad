"""The active time of a run: settled at each transition, shared by its attempts, at rest while no engine works."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move, Stop
from control_plane.domain.placing import provider_run
from control_plane.domain.run import Lease, Overdue
from control_plane.domain.timeouts import INTERACTION_MS
from control_plane.storage.run_log import Write
from shared.contracts.events import AttemptLost
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import PLACE, Replica, Stores, frame, new_run
from tests.service.control_plane.fake_manager import FakeManager

QUESTION = '{"questionId":"q1-1","type":"question","prompt":"which?"}'
ANSWERED = '{"questionId":"q1-1","how":"answered","answer":{"answer":"a"}}'
LOST = Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent"))
ACCEPTED = Move(Signal.ATTEMPT_ACCEPTED)


def started(run_ms: int, attempt: int = 1) -> Any:
    data = {"executorId": "e", "instance": "i", "provider": "scripted", "sandbox": "s", "timeouts": {"runMs": run_ms}}
    return frame(1, "attempt.started", json.dumps(data), attempt)


class Clocked:
    """One run whose clock is moved by moving what it counts from."""

    def __init__(self, stores: Stores, lease: Lease) -> None:
        self.stores, self.lease = stores, lease

    async def news(self, *news: Any) -> None:
        await self.stores.log.write([Write(self.lease.run_id, news, self.lease.token)])

    async def after(self, seconds: int) -> None:
        await self.stores.pool.execute(f"UPDATE agent_runs SET active_since = active_since - interval '{seconds} seconds'")

    async def left(self) -> tuple[int, bool]:
        """Whole seconds, rounded up to absorb the test's own time, and whether they are running."""
        row = await self.stores.pool.fetchrow("SELECT active_ms_left, active_since FROM agent_runs")
        assert row is not None
        return -(-row["active_ms_left"] // 5000) * 5, row["active_since"] is not None


@pytest.fixture
async def run(stores: Stores) -> Clocked:
    return Clocked(stores, await stores.started())


async def test_work_counts_and_waiting_for_a_person_does_not(run: Clocked) -> None:
    await run.news(started(60_000))
    assert await run.left() == (60, True)
    await run.after(10)
    await run.news(frame(2, "interaction.requested", QUESTION))
    assert await run.left() == (50, False)
    await run.news(frame(3, "interaction.resolved", ANSWERED))
    await run.after(20)
    await run.news(Stop())
    assert await run.left() == (30, False)


async def test_a_lost_attempt_leaves_the_next_one_what_it_did_not_use(run: Clocked, stores: Stores) -> None:
    await run.news(started(60_000))
    await run.after(25)
    await run.news(LOST)
    assert await run.left() == (35, False)
    assert await stores.runs.next_attempt(run.lease, PLACE) == 2
    request = provider_run(await stores.runs.driven(run.lease.run_id), [], {})
    assert (request.timeouts.rule, 30_000 < request.timeouts.run_ms <= 35_000) == ("remaining", True)
    await run.news(ACCEPTED)
    assert await run.left() == (35, False), "accepted, but not begun"
    await run.news(started(request.timeouts.run_ms, 2))
    assert await run.left() == (35, True)
    await run.after(15)
    await run.news(frame(2, "attempt.ended", '{"outcome":"success","activeMs":1}', 2))
    assert await run.left() == (20, False)


async def test_an_attempt_that_was_lost_before_it_told_of_its_start_has_used_nothing(run: Clocked, stores: Stores) -> None:
    await run.news(LOST)
    assert await stores.runs.next_attempt(run.lease, PLACE) == 2
    request = provider_run(await stores.runs.driven(run.lease.run_id), [], {})
    assert (request.timeouts.rule, request.timeouts.run_ms) == ("default", 1_800_000), "its limit is still to be found"


async def test_an_executors_own_word_of_a_loss_settles_the_time_as_well(run: Clocked) -> None:
    await run.news(started(60_000))
    await run.after(25)
    await run.news(frame(2, "attempt.ended", '{"outcome":"lost","errorCode":"executor_lost","activeMs":1}'))
    assert await run.left() == (35, False)


async def test_a_later_attempt_cannot_lengthen_the_run(run: Clocked, stores: Stores) -> None:
    await run.news(started(60_000))
    await run.after(25)
    await run.news(LOST)
    await stores.runs.next_attempt(run.lease, PLACE)
    await run.news(ACCEPTED, started(86_400_000, 2))
    assert await run.left() == (35, True)


async def test_time_that_is_used_up_is_zero_and_never_less(run: Clocked) -> None:
    await run.news(started(5_000))
    await run.after(3_600)
    await run.news(LOST)
    assert await run.left() == (0, False)


async def test_the_sweeper_comes_ten_seconds_after_the_executors_turn(run: Clocked, stores: Stores) -> None:
    await run.news(started(60_000))
    await run.after(65)
    assert await stores.runs.overdue(10, 3600) == {}
    await run.after(6)
    assert await stores.runs.overdue(10, 3600) == {run.lease.run_id: Overdue(RunStatus.RUNNING, 1, None)}


async def test_a_run_between_two_attempts_is_not_overdue_until_it_has_waited_as_long_as_a_queued_one_may(
    run: Clocked, stores: Stores
) -> None:
    await run.news(started(60_000))
    await run.after(1)
    await run.news(LOST)
    assert await stores.runs.overdue(10, 3600) == {}
    await stores.pool.execute("UPDATE attempts SET ended_at = now() - interval '2 hours'")
    assert await stores.runs.overdue(10, 3600) == {run.lease.run_id: Overdue(RunStatus.RUNNING, 1, "an executor")}
    await stores.log.write([Write(run.lease.run_id, [Stop(ErrorCode.TIMEOUT)])])
    assert await stores.runs.overdue(10, 3600) == {}, "it was asked to stop"


async def test_a_run_whose_next_attempt_lives_is_not_waiting_for_an_executor(run: Clocked, stores: Stores) -> None:
    await run.news(started(1_000), LOST)
    await stores.pool.execute("UPDATE attempts SET ended_at = now() - interval '2 hours'")
    await stores.runs.next_attempt(run.lease, PLACE)
    assert await stores.runs.overdue(10, 3600) == {}


async def test_a_queued_run_has_no_active_time(stores: Stores) -> None:
    run_id = await stores.runs.create(new_run(), None)
    row = await stores.pool.fetchrow("SELECT active_ms_left, active_since FROM agent_runs WHERE id = $1", run_id)
    assert row is not None
    assert tuple(row) == (None, None)
    driven = await stores.runs.driven(run_id)
    assert (driven.active_ms_left, driven.status) == (None, RunStatus.QUEUED)


async def test_the_limits_of_a_request_reach_its_executor_each_with_its_rule(replica: Replica, manager: FakeManager) -> None:
    options = {"timeoutMs": 50_000, "idleTimeoutMs": 51_000, "firstEventTimeoutMs": 52_000, "interactionTimeoutMs": 53_000}
    run_id = await replica.start(providerOptions=options)
    attempt = await manager.begun(run_id)
    sent = attempt.request
    assert sent["timeouts"] == {
        "runMs": 1_800_000, "idleMs": 51_000, "firstEventMs": 52_000, "interactionMs": 53_000, "stopGraceMs": 5_000,
        "rule": "default",
        "rules": {
            "idleMs": "providerOptions.idleTimeoutMs", "firstEventMs": "providerOptions.firstEventTimeoutMs",
            "interactionMs": "providerOptions.interactionTimeoutMs",
        },
    }  # fmt: skip
    assert sent["providerOptions"] == {"timeoutMs": 50_000}, "the manager finds the rule; the rest are no options of an engine"
    attempt.end()
    await replica.until(run_id, "success")


OPTIONS = ["timeoutMs", "runTimeoutMs", "idleTimeoutMs", "firstEventTimeoutMs", "interactionTimeoutMs"]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("value", [0, -1, 604_800_001, 1.5, "60000", True])
async def test_a_limit_above_its_bound_or_that_is_none_is_refused_before_a_row_exists(
    replica: Replica, stores: Stores, option: str, value: Any
) -> None:
    body = {"provider": "scripted", "prompt": "x", "providerOptions": {option: value}}
    answer = await replica.http.post("/api/runs/start", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"providerOptions.{option}")
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == 0


@pytest.mark.parametrize("option", OPTIONS)
async def test_a_limit_of_null_is_one_that_was_not_said(replica: Replica, manager: FakeManager, option: str) -> None:
    plain, told = await replica.start(), await replica.start(providerOptions={option: None})
    limits = [(await manager.begun(run_id)).request["timeouts"] for run_id in (plain, told)]
    assert limits[0] == limits[1]


async def test_an_app_whose_limit_is_null_leaves_it_to_the_default(replica: Replica, manager: FakeManager) -> None:
    defaults = {"provider": "scripted", "providerOptions": {"interactionTimeoutMs": None}}
    app = {"appId": "shop", "name": "The shop", "runtimeDefaults": defaults}
    assert (await replica.http.post("/api/apps/register", json=app)).status_code == 200
    attempt = await manager.begun(await replica.start(executionProfile="shop"))
    assert attempt.request["timeouts"]["interactionMs"] == INTERACTION_MS
