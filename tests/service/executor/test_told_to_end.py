"""SIGTERM of an executor: what works there is finished and told, what only waits is not waited for, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from executor import drain
from executor.drain import Drain, Left
from tests.service.executor.kit import Inside, Outside, executor_inside, executor_outside, until

ASKING = "echo ask q1; read answer; echo say $answer; echo done"
HOURS = "7200"


def script(*steps: dict[str, Any]) -> str:
    return json.dumps({"script": list(steps)})


# ---- the real pair of processes ----


async def draining(executor: Outside) -> dict[str, Any]:
    """Its state, once it has heard."""
    async with asyncio.timeout(20):
        while not (state := (await executor.http.get("/executor")).json())["draining"]:
            await asyncio.sleep(0.02)  # polling a condition with a bound
    return state


async def ended(executor: Outside) -> int | None:
    await until(lambda: executor.guard.poll() is not None)
    return executor.guard.returncode


async def test_an_executor_that_is_told_to_end_finishes_tells_and_ends_well(tmp_path: Path) -> None:
    async with executor_outside(tmp_path, EXECUTOR_DRAIN_SECONDS=HOURS) as executor:
        await executor.begin(script({"ask": {"prompt": "on?"}}, {"say": "late"}), "asked")
        await executor.begin(script({"repeat": {"count": 8, "everyMs": 250, "say": "tick {i}"}}))
        [asked] = [each["data"]["questionId"] for each in await executor.events("asked", until="interaction.requested")
                   if each["kind"] == "interaction.requested"]  # fmt: skip
        executor.guard.terminate()
        assert (await draining(executor))["live"] == 2
        refused = await executor.start("hello", "new")
        assert (refused.status_code, refused.json()["detail"]) == (429, "the executor is stopping")
        reply = {"questionId": asked, "answer": "yes"}
        assert (await executor.http.post("/provider-runs/asked/human-loop/reply", json=reply)).status_code == 200
        for run_id in ("asked", "run_1"):
            assert (await executor.ended(run_id))["outcome"] == "success", "a stream is opened, and followed to its end"
            assert (await executor.http.delete(f"/provider-runs/{run_id}")).status_code == 204
        assert await ended(executor) == 0
        assert not executor.state.pid.exists()


@pytest.mark.parametrize("how", ["interrupted", "told twice", "of no patience"])
async def test_who_cannot_wait_ends_an_executor_at_once_and_in_order(tmp_path: Path, how: str) -> None:
    async with executor_outside(tmp_path, EXECUTOR_DRAIN_SECONDS="0" if how == "of no patience" else HOURS) as executor:
        reading = await hanging(executor)
        if how == "told twice":
            executor.guard.terminate()
            await draining(executor)
        executor.guard.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGTERM)
        assert await last_word(reading) == ("lost", "the executor is stopping")
        assert await ended(executor) == 0


async def test_a_drain_ends_with_its_bound(tmp_path: Path) -> None:
    async with executor_outside(tmp_path, EXECUTOR_DRAIN_SECONDS="0.3") as executor:
        reading = await hanging(executor)
        executor.guard.terminate()
        assert await last_word(reading) == ("lost", "the executor is stopping")
        assert await ended(executor) == 0


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_draining_executor_and_its_guard_still_watch_each_other(tmp_path: Path, how: str) -> None:
    async with executor_outside(tmp_path, EXECUTOR_DRAIN_SECONDS=HOURS) as executor:
        reading = await hanging(executor)
        pid = executor.pid
        executor.guard.terminate()
        await until(lambda: int(executor.state.heartbeat.read_bytes().split()[2]))  # its guard knows how long it may take
        if how == "killed":
            executor.guard.kill()
            assert await last_word(reading) == ("lost", "the executor is stopping")
        else:
            os.kill(pid, signal.SIGSTOP)
            assert await ended(executor) == 1
            reading.cancel()
        await until(lambda: not executor.marked())


async def hanging(executor: Outside) -> asyncio.Task[list[dict[str, Any]]]:
    """The reader of a run that never ends by itself."""
    await executor.begin(script({"say": "up"}, {"hang": True}))
    await executor.events(until="message.completed")
    return asyncio.create_task(executor.events())


async def last_word(reading: asyncio.Task[list[dict[str, Any]]]) -> tuple[str, str]:
    last = (await reading)[-1]["data"]
    return last["outcome"], last["errorMessage"]


# ---- what is waited for ----


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


@asynccontextmanager
async def drained(executor: Inside, bound_seconds: float = 3600) -> AsyncGenerator[asyncio.Event]:
    """What is set when it would end."""
    over = asyncio.Event()
    drain = Drain(executor.app.runs, bound_seconds, over.set)
    drain.begin()
    try:
        yield over
    finally:
        await drain.close()


async def still_waits(over: asyncio.Event) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(over.wait(), 5 * drain.LOOK_SECONDS)  # several looks: that nothing happens is the point


async def over_soon(over: asyncio.Event) -> None:
    await asyncio.wait_for(over.wait(), 20)


async def test_an_executor_with_nothing_to_do_ends_at_once(executor: Inside) -> None:
    async with drained(executor) as over:
        await over_soon(over)


async def test_who_waits_for_a_person_is_ended_as_lost_once_nothing_else_works(
    executor: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is parked then, and the question stays open."""
    monkeypatch.setitem(drain.PATIENCE, Left.QUESTIONS, 0.1)
    await executor.begin(ASKING, "asking")
    await executor.begin("echo say up; read word", "working")
    await executor.events("asking", until="interaction.requested")
    await executor.said("up", "working")
    async with drained(executor) as over:
        await still_waits(over)
        assert (await executor.show("asking"))["status"] == "running", "while others work it may be answered"
        await executor.stop("working")
        events = await executor.events("asking")
        ended = events[-1]["data"]
        assert (ended["outcome"], ended["errorMessage"]) == ("lost", "the executor is stopping"), "and not for its leash"
        assert not any(each["kind"] == "interaction.resolved" for each in events)
        assert not over.is_set(), "and that is told, too"
        for run_id in ("asking", "working"):
            await executor.events(run_id)
            assert (await executor.http.delete(f"/provider-runs/{run_id}")).status_code == 204
        await over_soon(over)


async def test_who_is_answered_in_time_goes_on(executor: Inside) -> None:
    await executor.begin(ASKING)
    await executor.events(until="interaction.requested")
    async with drained(executor) as over:
        await still_waits(over)
        assert (await executor.http.post("/provider-runs/run_1/human-loop/reply", json={"questionId": "q1", "answer": "yes"})
                ).status_code == 200  # fmt: skip
        assert (await executor.ended())["outcome"] == "success"
        await executor.http.delete("/provider-runs/run_1")
        await over_soon(over)


async def test_an_end_that_nobody_has_read_is_waited_for(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(drain.PATIENCE, Left.UNRELEASED, 0.1)
    await executor.begin("echo done")
    await until(lambda: not executor.app.runs.live())
    async with drained(executor) as over:
        await still_waits(over)
        assert (await executor.ended())["outcome"] == "success"
        await over_soon(over)  # who has read it may be gone: its word is not waited for as long


async def test_an_end_that_nobody_reads_is_not_waited_for_for_ever(executor: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(drain.PATIENCE, Left.UNREAD, 0.1)
    await executor.begin("echo done")
    await until(lambda: not executor.app.runs.live())
    async with drained(executor) as over:
        await over_soon(over)


async def test_an_executor_that_is_told_to_end_cannot_be_told_to_go_on(executor: Inside) -> None:
    await executor.begin("echo say up; read word")
    await executor.said("up")
    async with drained(executor, bound_seconds=0.5) as over:
        assert (await executor.http.delete("/executor/drain")).json()["draining"]
        assert (await executor.start("echo done", "new")).json()["detail"] == "the executor is stopping"
        await over_soon(over)
        assert (await executor.show())["status"] == "running", "how it is ended is not the drain's to say"
