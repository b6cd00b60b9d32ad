"""The short set of what `make chaos` does at length: an executor is killed under a run, and a control plane under a question."""

from __future__ import annotations

import signal

from tests.chaos.deaths import LOAD_SECONDS, TRUE_STATUS_SECONDS, Watch, back, executor_of, in_a_question, in_mid_run, strike
from tests.e2e.kit import Stack


async def test_a_run_whose_executor_is_killed_ends_truly_and_leaves_no_process(stack: Stack) -> None:
    run_id = await in_mid_run(stack)
    executor = await executor_of(stack, run_id)
    async with Watch(run_id) as watch:
        old = strike(stack, executor, signal.SIGKILL)
        shown = await stack.until(run_id, within=TRUE_STATUS_SECONDS + LOAD_SECONDS)
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "executor_lost", True)
    assert watch.most <= 1
    await stack.check(run_id)
    await back(stack, executor, old)


async def test_a_question_outlives_a_killed_control_plane_and_is_answered_once(stack: Stack) -> None:
    run_id, question_id = await in_a_question(stack)
    old = strike(stack, "control-plane", signal.SIGKILL)
    await back(stack, "control-plane", old)
    assert (await stack.show(run_id))["status"] == "waiting_user"
    assert (await stack.reply(run_id, question_id, answer="blue")).status_code == 200
    shown = await stack.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    texts = [each["data"]["text"] for each in await stack.check(run_id) if each["kind"] == "message.completed"]
    assert texts.count("reply: blue") == 1
