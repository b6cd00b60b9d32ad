"""One part dies or freezes while a run works or waits: the run goes on, or ends truly, and nothing is left behind.

All parts are restarted by the supervisor, so one stack serves all tests here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.chaos.deaths import (
    LOAD_SECONDS,
    TRUE_STATUS_SECONDS,
    Watch,
    back,
    cmdline,
    executor_of,
    in_a_question,
    in_mid_run,
    strike,
)
from tests.e2e.kit import Stack, processes_with, soon

pytestmark = pytest.mark.chaos

DEATHS = [signal.SIGKILL, signal.SIGSTOP]


@pytest.mark.parametrize("how", DEATHS)
async def test_a_run_whose_executor_dies_ends_truly_and_leaves_nothing(stack: Stack, how: signal.Signals) -> None:
    run_id = await in_mid_run(stack)
    executor = await executor_of(stack, run_id)
    began = time.monotonic()
    async with Watch(run_id) as watch:
        old = strike(stack, executor, how)
        shown = await stack.until(run_id, within=TRUE_STATUS_SECONDS + LOAD_SECONDS)
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "executor_lost", True)
    assert time.monotonic() - began < TRUE_STATUS_SECONDS + LOAD_SECONDS
    assert watch.most <= 1
    await stack.check(run_id)
    await back(stack, executor, old)


@pytest.mark.parametrize("how", DEATHS)
async def test_a_run_that_waits_for_a_person_survives_its_executor(stack: Stack, how: signal.Signals) -> None:
    run_id, question_id = await in_a_question(stack)
    executor = await executor_of(stack, run_id)
    async with Watch(run_id) as watch:
        old = strike(stack, executor, how)
        assert soon(lambda: not processes_with("RUNYARD_RUN", f"{run_id}."), TRUE_STATUS_SECONDS + LOAD_SECONDS)
        await back(stack, executor, old)
        deadline = time.monotonic() + TRUE_STATUS_SECONDS + LOAD_SECONDS
        while (shown := await stack.show(run_id))["phase"] != "parked":
            assert time.monotonic() < deadline, shown
            await asyncio.sleep(0.1)  # polling a condition with a bound
        assert [each["questionId"] for each in shown["pendingQuestions"]] == [question_id]
        assert (await stack.reply(run_id, question_id, answer="blue")).status_code == 200
        shown = await stack.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 2), str(await stack.events(run_id))
    assert "blue" in str(await stack.events(run_id))
    assert watch.most <= 1
    await stack.check(run_id)


@pytest.mark.parametrize("service", ["executor-manager", "control-plane"])
@pytest.mark.parametrize("how", DEATHS)
async def test_a_working_run_goes_on_when_a_service_dies(stack: Stack, service: str, how: signal.Signals) -> None:
    run_id = await in_mid_run(stack)
    [engine] = [pid for pid in processes_with("RUNYARD_RUN", f"{run_id}.") if b"scripted" in cmdline(pid)]
    async with Watch(run_id) as watch:
        old = strike(stack, service, how)
        await back(stack, service, old)
        shown = await stack.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    assert watch.seen == {engine}
    events = await stack.check(run_id)
    said = [event["data"]["text"] for event in events if event["kind"] == "message.completed"]
    assert [text for text in said if text.startswith("tick")] == [f"tick {n}" for n in range(1, 601)]


@pytest.mark.parametrize("service", ["executor-manager", "control-plane"])
@pytest.mark.parametrize("how", DEATHS)
async def test_a_question_survives_the_death_of_a_service(stack: Stack, service: str, how: signal.Signals) -> None:
    run_id, question_id = await in_a_question(stack)
    old = strike(stack, service, how)
    await back(stack, service, old)
    assert (await stack.show(run_id))["status"] == "waiting_user"
    assert (await stack.reply(run_id, question_id, answer="blue")).status_code == 200
    shown = await stack.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    texts = [e["data"]["text"] for e in await stack.check(run_id) if e["kind"] == "message.completed"]
    assert texts.count("reply: blue") == 1


async def test_runs_go_on_when_postgres_restarts(stack: Stack) -> None:
    run_id = await in_mid_run(stack)
    os.kill(stack.pid("postgres"), signal.SIGKILL)
    shown = await stack.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    events = await stack.check(run_id)
    said = [event["data"]["text"] for event in events if event["kind"] == "message.completed"]
    assert [text for text in said if text.startswith("tick")] == [f"tick {n}" for n in range(1, 601)]
