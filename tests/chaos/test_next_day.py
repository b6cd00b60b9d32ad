"""A run asks, everything is killed, and the answer comes the next day."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.chaos.rolling import parent
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, gone, running_stack, script
from tests.e2e.test_sessions_move import began, texts

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

OPTIONS = ("--control-planes", "2", "--managers", "2", "--executors", "2")
PARKED_SECONDS = 40.0
WEEK_MS = 7 * 24 * 3600 * 1000
ASK = script({"write": {"path": "notes/a.txt", "text": "kumquat"}}, {"say": "written"}, {"ask": {"prompt": "which colour?"}})
DAY_PASSES = """
UPDATE agent_runs SET created_at = created_at - interval '1 day', started_at = started_at - interval '1 day';
UPDATE attempts SET started_at = started_at - interval '1 day', ended_at = ended_at - interval '1 day';
UPDATE run_events SET at = at - interval '1 day';
UPDATE interactions SET created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day';
"""


def answer(number: int) -> str:
    return script({"read": "notes/a.txt"}, {"say": f"colour {number}"})


async def kill_everything(stack: Stack, executors_too: bool) -> None:
    """Nobody is asked. An executor whose guard is killed ends by itself; one that is killed with it leaves no last word."""
    facts = stack.facts
    executors = {
        each["pid"] for each in facts["services"] if each["name"].startswith("executor-") and "manager" not in each["name"]
    }
    guards = {parent(pid) for pid in executors}
    pids = {each["pid"] for each in facts["services"]} | guards
    for pid in (facts["pid"], *guards, *(pids if executors_too else pids - executors)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went with the one before
    stack.process.wait(30)
    for pid in pids:
        await gone(pid)


async def hundred_answers(stack: Stack, run_id: str, question_id: str) -> tuple[Counter[int], set[str]]:
    """Different ones, at both control planes at once: how often each status was answered, and the winners that were named."""
    urls = [each["url"] for each in stack.facts["services"] if each["name"].startswith("control-plane")]

    async def one(number: int) -> httpx.Response:
        body = {"questionId": question_id, "answer": answer(number)}
        return await stack.client.post(f"{urls[number % 2]}/api/runs/{run_id}/human-loop/reply", json=body)

    answers = await asyncio.gather(*(one(number) for number in range(100)))
    named = {each.json()["answer"]["answer"] for each in answers if each.status_code == 409}
    return Counter(each.status_code for each in answers), named


async def a_day_passes(stack: Stack) -> None:
    connection = await asyncpg.connect(stack.facts["databaseUrl"])
    try:
        await connection.execute(DAY_PASSES)
    finally:
        await connection.close()


async def parked(stack: Stack, run_id: str) -> None:
    async with asyncio.timeout(PARKED_SECONDS):
        while (await stack.show(run_id))["phase"] != "parked":
            await asyncio.sleep(0.1)  # polling a condition with a bound


async def drained(stack: Stack, executor_id: str) -> None:
    manager = next(each["url"] for each in stack.facts["services"] if each["name"] == "executor-manager")
    async with stack.client_with(stack.facts["serviceToken"]) as http:
        assert (await http.post(f"{manager}/api/executors/{executor_id}/drain")).status_code == 200


async def asked(folder: Path, given: dict[str, str], executors_too: bool) -> tuple[str, str, str]:
    """(run, question, executor) of a run that waits for a person, in a stack that was killed."""
    with running_stack(folder / "state", *OPTIONS, environment=given) as stack:
        async with stack.client:
            run_id = await stack.start(ASK, sessionId="s", providerOptions={"interactionTimeoutMs": WEEK_MS})
            question_id = (await stack.question(run_id))["questionId"]
            home = began(await stack.events(run_id))["executorId"]
            await kill_everything(stack, executors_too)
    return run_id, question_id, home


@pytest.mark.parametrize("executors_too", [False, True], ids=["on another executor", "executors killed too"])
async def test_the_answer_of_the_next_day_finds_its_run_although_everything_was_killed(executors_too: bool) -> None:
    """What an executor could not put away before it was killed is on its own disk only: then it is waited for."""
    with make_folder() as folder:
        given = {"EXECUTOR_SNAPSHOT_STORE": f"file://{folder}/store"}
        run_id, question_id, home = await asked(folder, given, executors_too)
        if not executors_too:
            for workspace in (folder / "state" / "workspaces").glob("*"):
                shutil.rmtree(workspace)  # the disk of a machine that never comes back
        with running_stack(folder / "state", *OPTIONS, environment=given) as stack:
            async with stack.client:
                await parked(stack, run_id)
                await a_day_passes(stack)
                if not executors_too:
                    await drained(stack, home)
                statuses, named = await hundred_answers(stack, run_id, question_id)
                shown = await stack.until(run_id)
                events = await stack.check(run_id)
    assert (statuses, len(named)) == (Counter({409: 99, 200: 1}), 1)
    assert (shown["status"], shown["attempt"]) == ("success", 2), events
    [won] = named
    said = texts(events)
    assert said[:3] == ["written", "turns: 2", "kumquat"]
    assert [answer(int(said[3].removeprefix("colour ")))] == [won]
    assert (began(events)["executorId"] == home) == executors_too
    assert [each["data"]["how"] for each in events if each["kind"] == "interaction.resolved"] == ["answered"]
