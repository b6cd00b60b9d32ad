"""Two control planes and two managers beside each other: one of them may always die, and no client notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from shared.sse import Frame
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Frames, Stack, running_stack, script

pytestmark = pytest.mark.chaos

TICKS = 500
LONG = script({"repeat": {"count": TICKS, "everyMs": 20, "say": "tick {i}"}})


@pytest.fixture(scope="module")
def replicas() -> Iterator[Stack]:
    with make_folder() as folder:
        options = ("--control-planes", "2", "--managers", "2", "--executors", "2")
        with running_stack(folder / "state", *options) as stack:
            yield stack


@pytest.fixture
async def doubled(replicas: Stack) -> AsyncIterator[Stack]:
    fresh = Stack(replicas.process, replicas.ready_file, replicas.state_dir)
    async with fresh.client:
        yield fresh


def url(stack: Stack, service: str) -> str:
    return next(each["url"] for each in stack.facts["services"] if each["name"] == service)


async def patiently(stack: Stack, run_id: str) -> list[Frame]:
    """A client as ours are: it follows at any replica, and resumes by cursor wherever it was cut."""
    seen: list[Frame] = []
    turn = 0
    while not (seen and seen[-1].event == b"run.status" and b'"status":"success"' in seen[-1].data):
        service = ("control-plane", "control-plane-2")[turn % 2]
        turn += 1
        cursor = {"last-event-id": seen[-1].id.decode()} if seen else {}
        try:
            async with stack.client.stream("GET", f"{url(stack, service)}/api/runs/{run_id}/stream", headers=cursor) as answer:
                if answer.status_code != 200:
                    continue
                async for frame in Frames(answer):
                    seen.append(frame)
        except httpx.HTTPError:
            await asyncio.sleep(0.1)  # a replica is being restarted: back-off
        assert turn < 500
    return seen


@pytest.mark.parametrize("service", ["control-plane", "control-plane-2", "executor-manager", "executor-manager-2"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_any_one_of_two_may_die_and_every_client_sees_every_event_once(
    doubled: Stack, service: str, how: signal.Signals
) -> None:
    run_id = await doubled.start(LONG)
    followers = [asyncio.ensure_future(patiently(doubled, run_id)) for _ in range(6)]
    async with doubled.stream(run_id) as frames:
        async for frame in frames:
            if b"tick 50" in frame.data:
                break
    os.kill(doubled.pid(service), how)
    lists = await asyncio.gather(*followers)
    shown = await doubled.until(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    stored = [event["cursor"] for event in await doubled.check(run_id)]
    for seen in lists:
        assert [int(frame.id) for frame in seen] == stored
        assert seen == lists[0]


async def test_a_run_started_at_one_replica_is_stopped_and_answered_at_the_other(doubled: Stack) -> None:
    other = url(doubled, "control-plane-2")
    run_id = await doubled.start(script({"ask": {"prompt": "?"}}, {"hang": True}))
    question = await doubled.question(run_id)
    reply = {"questionId": question["questionId"], "answer": "x"}
    assert (await doubled.client.post(f"{other}/api/runs/{run_id}/human-loop/reply", json=reply)).status_code == 200
    await doubled.until(run_id, "running")
    assert (await doubled.client.post(f"{other}/api/runs/{run_id}/stop")).status_code == 200
    assert (await doubled.until(run_id))["status"] == "canceled"
    await doubled.check(run_id)


async def test_fifty_starts_with_one_key_at_two_replicas_make_one_run(doubled: Stack) -> None:
    urls = [url(doubled, name) for name in ("control-plane", "control-plane-2")]
    request, headers = {"provider": "scripted", "prompt": "x"}, {"idempotency-key": "both"}
    answers = await asyncio.gather(*(
        doubled.client.post(f"{urls[n % 2]}/api/runs/start", json=request, headers=headers) for n in range(50)
    ))  # fmt: skip
    assert len({each.text for each in answers}) == 1
    await doubled.until(answers[0].json()["runId"])


async def test_what_is_started_while_every_executor_is_down_runs_when_one_is_back(doubled: Stack) -> None:
    for name in ("executor-1", "executor-2"):
        os.kill(doubled.pid(name), signal.SIGKILL)
    run_id = await doubled.start("waits")
    shown = await doubled.until(run_id)
    assert (shown["status"], shown["result"]) == ("success", "waits")
    await doubled.check(run_id)
