"""The manager as a real process in front of a real executor: start, follow, deaths and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shared.sse import CutError, FrameReader
from shared.upstream import Upstream
from tests.loopback import BOUND_SECONDS, unused_port
from tests.service.executor.kit import executor_outside
from tests.service.executor_manager.kit import RUNS, manager_process, refused_to_start

TICKS = json.dumps({"script": [{"repeat": {"count": 100, "everyMs": 10, "say": "tick {i}"}}]})
HANG = json.dumps({"script": [{"say": "here"}, {"hang": True}]})


async def collect(upstream: Upstream, events: list[dict[str, Any]], enough: int = 10**9) -> None:
    """The stream's events, up to its end or until there are ``enough``. A cut raises."""
    reader = FrameReader()
    async with asyncio.timeout(BOUND_SECONDS):
        while len(events) < enough and (block := await upstream.next(5.0)) is not None:
            events += [json.loads(frame.data) for frame in reader.feed(block) if frame.id]


async def test_a_run_is_started_and_followed_to_its_end_and_its_file_and_log_can_be_read(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as real, manager_process(str(real.http.base_url), unused_port()) as here:
        script = json.dumps({"script": [{"write": {"path": "a b.txt", "text": "ü"}}, {"say": "done"}]})
        executor_id = await here.start("run_1", script)
        events: list[dict[str, Any]] = []
        await collect(await here.follow("run_1", executor_id), events)
        assert [event["executorCursor"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["kind"] == "attempt.ended"
        started = next(event for event in events if event["kind"] == "attempt.started")
        assert started["data"]["timeouts"]["rule"] == "EXECUTOR_RUN_TIMEOUT_MS"
        run = {"executor": executor_id, "attempt": 1}
        assert (await here.http.get(f"{RUNS}/run_1/files/a b.txt", params=run)).content == "ü".encode()
        log = (await here.http.get(f"{RUNS}/run_1/logs/stdout", params={**run, "byteFrom": 0, "byteTo": 10})).json()
        assert (log["byteFrom"], log["byteTo"]) == (0, 10)
        assert (await here.http.get(f"{RUNS}/run_1")).json()["executorId"] == executor_id
        assert (await here.http.delete(f"{RUNS}/run_1", params=run)).status_code == 204
        assert (await here.http.get(f"{RUNS}/run_1")).status_code == 404


async def test_a_killed_manager_costs_no_event_and_no_run(tmp_path: Path) -> None:
    port = unused_port()
    events: list[dict[str, Any]] = []
    async with executor_outside(tmp_path) as real:
        async with manager_process(str(real.http.base_url), port) as first:
            executor_id = await first.start("run_1", TICKS)
            upstream = await first.follow("run_1", executor_id)
            await collect(upstream, events, enough=10)
            first.process.kill()
            with pytest.raises(CutError):
                await collect(upstream, events)
        async with manager_process(str(real.http.base_url), port) as second:
            await collect(await second.follow("run_1", executor_id, events[-1]["executorCursor"]), events)
    assert [event["executorCursor"] for event in events] == list(range(1, len(events) + 1))
    assert len([event for event in events if event["kind"] == "message.completed"]) == 100
    assert events[-1]["data"]["outcome"] == "success"


async def test_a_manager_told_to_end_cuts_its_streams_and_is_gone_soon(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as real, manager_process(str(real.http.base_url), unused_port()) as here:
        upstream = await here.follow("run_1", await here.start("run_1", HANG))
        await collect(upstream, [], enough=2)
        asked = time.monotonic()
        here.process.terminate()
        with pytest.raises(CutError):
            await collect(upstream, [])
        assert await asyncio.to_thread(here.process.wait, BOUND_SECONDS) in (0, -signal.SIGTERM)
        assert time.monotonic() - asked < 10
        assert (await real.show("run_1"))["status"] == "running", "the run does not notice"


async def test_a_killed_executor_is_a_cut_stream_and_then_an_unreachable_one(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as real, manager_process(str(real.http.base_url), unused_port()) as here:
        executor_id = await here.start("run_1", HANG)
        upstream = await here.follow("run_1", executor_id)
        await collect(upstream, [], enough=2)
        os.kill(real.pid, signal.SIGKILL)
        with pytest.raises(CutError):
            await collect(upstream, [])
        await asyncio.to_thread(real.guard.wait, BOUND_SECONDS)
        answer = await here.http.post(f"{RUNS}/run_1/stop", params={"executor": executor_id, "attempt": 1})
        assert (answer.status_code, answer.json()["sent"]) == (503, False)
        async with asyncio.timeout(BOUND_SECONDS):
            while await here.offers_a_place():
                await asyncio.sleep(0.05)  # polls until the fleet has noticed, bounded above


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RUNYARD_SERVICE_TOKEN": ""}, "RUNYARD_SERVICE_TOKEN is not set"),
        ({"RUNYARD_AUTH": "off", "EXECUTOR_MANAGER_HOST": "0.0.0.0"}, "on loopback only"),
        ({"RUNYARD_AUTH": "off", "EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE": "/nowhere.toml"}, "/nowhere.toml: cannot be read"),
        ({"RUNYARD_AUTH": "off", "EXECUTOR_RUN_TIMEOUT_MS": "0"}, "EXECUTOR_RUN_TIMEOUT_MS"),
        ({"RUNYARD_AUTH": "off", "EXECUTOR_MANAGER_EXECUTORS": "http://a:8090,http://b:809o"}, "EXECUTOR_MANAGER_EXECUTORS"),
    ],
)
def test_a_manager_that_cannot_work_ends_at_once_and_says_why(given: dict[str, str], said: str) -> None:
    assert said in refused_to_start(**given)
