"""Two managers between one control plane and its executors: either may die, then the other, then both at once. Nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.sse import Frame
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack, script

MANAGERS = ("executor-manager", "executor-manager-2")
LONG = script({"repeat": {"count": 600, "everyMs": 20, "say": "tick {i}"}})


@pytest.fixture(scope="module")
def doubled_stack() -> Iterator[Stack]:
    with make_folder() as folder, running_stack(folder / "state", "--managers", "2", "--executors", "2") as stack:
        yield stack


@pytest.fixture
async def doubled(doubled_stack: Stack) -> AsyncIterator[Stack]:
    fresh = Stack(doubled_stack.process, doubled_stack.ready_file, doubled_stack.state_dir)
    async with fresh.client:
        yield fresh


async def killed(stack: Stack, *services: str) -> None:
    """Killed, and up again under other pids."""
    before = {name: stack.pid(name) for name in services}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(40):
        while any(stack.pid(name) == pid for name, pid in before.items()):
            await asyncio.sleep(0.05)  # polling a condition with a bound


@pytest.mark.parametrize(
    "deaths",
    [[MANAGERS[:1], MANAGERS[1:], MANAGERS[:1]], [MANAGERS]],
    ids=["one, then the other, then the first again", "both"],
)
async def test_a_clients_stream_goes_on_through_the_death_of_each_manager(doubled: Stack, deaths: list[tuple[str, ...]]) -> None:
    run_id = await doubled.start(LONG)
    seen: list[Frame] = []
    ticked = asyncio.Event()

    async def follow() -> None:
        async with doubled.stream(run_id) as frames:
            async for frame in frames:
                seen.append(frame)
                if b"tick 20" in frame.data:
                    ticked.set()

    follower = asyncio.ensure_future(follow())
    async with asyncio.timeout(60):
        await ticked.wait()
        for services in deaths:
            await killed(doubled, *services)
        assert (await doubled.until(run_id))["attempt"] == 1
        await follower
    stored = await doubled.check(run_id)
    assert [int(frame.id) for frame in seen] == [event["cursor"] for event in stored], (
        "one connection, nothing missing, nothing twice"
    )
    assert stored[-1]["data"]["status"] == "success"
    assert [event["data"]["text"] for event in stored if event["kind"] == "message.completed"] == [
        f"tick {n}" for n in range(1, 601)
    ]


async def test_what_is_asked_while_no_manager_lives_is_done_when_one_is_back(doubled: Stack) -> None:
    asking = await doubled.start(script({"ask": {"prompt": "?"}}))
    question = await doubled.question(asking)
    hanging = await doubled.start(script({"say": "up"}, {"hang": True}))
    await doubled.until(hanging, "running")
    for name in MANAGERS:
        os.kill(doubled.pid(name), signal.SIGKILL)
    assert (await doubled.reply(asking, question["questionId"], answer="yes")).status_code == 200
    assert (await doubled.stop(hanging)).status_code == 200
    waiting = await doubled.start("waits")
    assert (await doubled.until(asking))["result"] == "reply: yes"
    assert (await doubled.until(hanging))["status"] == "canceled"
    assert (await doubled.until(waiting))["status"] == "success"
    for run_id in (asking, hanging, waiting):
        await doubled.check(run_id)
