"""``python -m tests.chaos.soak.crowd``: a thousand runs at once, each saying one thing a second, some of them followed live.

Every list is held against what its script says and against what is stored. Ends with 1 when an event is missing or out of its
place, an attempt was lost, a client's list differs, or not all runs lived at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from shared.contracts.runs import TERMINAL
from shared.errors import RunyardError
from shared.http import NoAnswerError
from shared.server import allow_open_files
from shared.sse import CutError, FrameReader
from shared.upstream import open_stream
from tests.chaos.soak.figures import Figures
from tests.chaos.soak.watching import Watching
from tests.chaos.storm.__main__ import say
from tests.chaos.storm.check import said_faults, violations
from tests.chaos.storm.clients import TICKING, Followed
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack, script

EVERY_MS = 1_000
CALL_SECONDS = 60.0
SILENCE_SECONDS = 30.0
LATE_SECONDS = 180.0
READ_AT_ONCE = 8
TOLD_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Size:
    """How large a crowd. ``ticks``: what each run says, one a second."""

    runs: int
    ramp_seconds: float
    hold_seconds: float
    followers: int

    @property
    def ticks(self) -> int:
        return int(self.ramp_seconds + self.hold_seconds)


@dataclass
class Crowd:
    """What happened. ``runs`` by number; ``refused``: starts that were answered 429 and asked again."""

    size: Size
    runs: list[Followed] = field(default_factory=list[Followed])
    start_seconds: list[float] = field(default_factory=list[float])
    refused: int = 0
    faults: list[str] = field(default_factory=list[str])


class Callers:
    """Starts runs and follows them. ``received`` holds wall-clock seconds, one per frame, of those that are followed live."""

    def __init__(self, stack: Stack, crowd: Crowd) -> None:
        facts = stack.facts
        self._urls = [each["url"] for each in facts["services"] if each["name"].startswith("control-plane")]
        self._headers = {"authorization": f"Bearer {facts['apiKey']}"}
        self.http = httpx.AsyncClient(
            headers=self._headers, timeout=CALL_SECONDS, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        self._crowd = crowd
        self._prompt = script({"repeat": {"count": crowd.size.ticks, "everyMs": EVERY_MS, "say": "tick {i}"}})
        self.received: dict[str, list[float]] = {}

    def url(self, number: int) -> str:
        return self._urls[number % len(self._urls)]

    async def one(self, number: int) -> None:
        """Start the run of that number when its time has come; follow it to its end if it is among those followed live."""
        size = self._crowd.size
        await asyncio.sleep(number * size.ramp_seconds / size.runs)  # its place in the ramp
        began = time.monotonic()
        run = Followed(await self._start(number), TICKING, size.ticks)
        self._crowd.start_seconds.append(time.monotonic() - began)
        self._crowd.runs.append(run)
        if number % max(size.runs // max(size.followers, 1), 1) == 0 and len(self.received) < size.followers:
            await self.follow(run, number, self.received.setdefault(run.run_id, []))

    async def _start(self, number: int) -> str:
        while True:
            answer = await self.http.post(
                f"{self.url(number)}/api/runs/start", json={"provider": "scripted", "prompt": self._prompt}
            )
            if answer.status_code == 202:
                return answer.json()["runId"]
            if answer.status_code != 429:
                raise NoAnswerError(f"{answer.status_code} {answer.text[:200]}")
            self._crowd.refused += 1
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))  # as it asks for

    async def follow(self, run: Followed, number: int, received: list[float]) -> None:
        """To its terminal event, over as many connections as it takes."""
        while run.ended is None:
            run.connections += 1
            try:
                await self._read(run, number, received)
            except (CutError, NoAnswerError, RunyardError):
                await asyncio.sleep(0.2)  # back-off

    async def _read(self, run: Followed, number: int, received: list[float]) -> None:
        url = f"{self.url(number)}/api/runs/{run.run_id}/stream?cursor={run.cursor}"
        upstream = await open_stream(url, self._headers, 5, CALL_SECONDS)
        reader = FrameReader()
        try:
            while (block := await upstream.next(SILENCE_SECONDS)) is not None:
                if not block:
                    return
                now = time.time()
                for frame in reader.feed(block):
                    run.frames.append(frame)
                    received.append(now)
        finally:
            await upstream.close()


async def crowd(stack: Stack, size: Size) -> tuple[Crowd, Figures]:
    happened = Crowd(size)
    callers = Callers(stack, happened)
    watching = Watching(stack)
    async with callers.http, watching.going_on():
        began = time.monotonic()
        tasks = [asyncio.create_task(callers.one(number)) for number in range(size.runs)]
        await asyncio.sleep(size.ramp_seconds)  # the ramp
        while len(happened.runs) < size.runs and time.monotonic() - began < size.ramp_seconds + LATE_SECONDS:
            await asyncio.sleep(0.5)  # polling a condition with a bound
        watching.all_began()
        await asyncio.sleep(max(0.0, began + size.ticks - 5 - time.monotonic()))  # all live, until the first is about to end
        watching.all_lived()
        await _until_all_ended(stack, size, happened)
        await asyncio.wait(tasks, timeout=LATE_SECONDS)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                happened.faults.append(f"a client failed: {outcome!r}")
        watching.over()
        await _compare(stack, callers, happened)
    happened.faults += await violations(stack.facts["databaseUrl"], happened.runs)
    return happened, await watching.figures(callers.received, happened.start_seconds)


async def _until_all_ended(stack: Stack, size: Size, happened: Crowd) -> None:
    connection = await asyncpg.connect(stack.facts["databaseUrl"])
    deadline, ended = time.monotonic() + size.ticks + LATE_SECONDS, 0
    try:
        while time.monotonic() < deadline:
            ended = await connection.fetchval(
                "SELECT count(*) FROM agent_runs WHERE status::text = ANY ($1)", [status.value for status in TERMINAL]
            )
            if ended >= size.runs:
                return
            await asyncio.sleep(1)  # polling a condition with a bound
        happened.faults.append(f"after {size.ticks + LATE_SECONDS:.0f} s only {ended} runs are over")
    finally:
        await connection.close()


async def _compare(stack: Stack, callers: Callers, happened: Crowd) -> None:
    """Every run's list over the events endpoint is what its script says; who was not followed live is replayed now."""
    gate = asyncio.Semaphore(READ_AT_ONCE)

    async def one(number: int, run: Followed) -> None:
        async with gate:
            if not run.frames:
                await callers.follow(run, number, [])
            page = await callers.http.get(f"{callers.url(number)}/api/runs/{run.run_id}/events?after=0&limit=5000")
            happened.faults += faults_of(run, page.raise_for_status().json()["items"])

    await asyncio.gather(*(one(number, run) for number, run in enumerate(happened.runs)))


def faults_of(run: Followed, events: Sequence[dict[str, Any]]) -> list[str]:
    texts = [event["data"]["text"] for event in events if event["kind"] == "message.completed"]
    found = said_faults(run.run_id, texts, run.ticks)
    found += [] if run.ended == "success" else [f"{run.run_id} ended as {run.ended}"]
    attempts = sum(event["kind"] == "attempt.started" for event in events)
    found += [] if attempts == 1 else [f"{run.run_id} had {attempts} attempts"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak.crowd", description="A thousand runs at once.")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--ramp", type=float, default=60, help="seconds in which they are started; default 60")
    parser.add_argument("--hold", type=float, default=60, help="seconds for which all of them live; default 60")
    parser.add_argument("--followers", type=int, default=100, help="clients that follow a run each; default 100")
    parser.add_argument("--control-planes", type=int, default=1)
    parser.add_argument("--executors", type=int, default=2)
    parser.add_argument("--containment", default="none", help="of engines; default none, the cheapest")
    parser.add_argument("--logs", type=Path, help="a folder that gets what the services logged")
    given = parser.parse_args()
    size = Size(given.runs, given.ramp, given.hold, given.followers)
    allow_open_files()
    environment = {
        "EXECUTOR_SLOTS": str(-(-given.runs // given.executors)),
        "EXECUTOR_CONTAINMENT": given.containment,
        "RUNYARD_DRIVES": str(-(-given.runs // given.control_planes)),
        "RUNYARD_QUEUE_LIMIT": str(given.runs),
    }
    options = ("--control-planes", str(given.control_planes), "--executors", str(given.executors))
    with make_folder() as folder, running_stack(folder / "state", *options, environment=environment) as stack:
        try:
            happened, figures = asyncio.run(crowd(stack, size))
        finally:
            if given.logs is not None:
                shutil.copytree(stack.state_dir / "logs", given.logs, dirs_exist_ok=True)
    broken = happened.faults + figures.faults(size.runs)
    say(f"{size.runs} runs of {size.ticks} events over {size.ramp_seconds:.0f} s, {len(happened.start_seconds)} started, "
        f"{happened.refused} asked again, load {os.getloadavg()[0]:.1f}\n\n{figures.told()}\n\n{len(broken)} faults")  # fmt: skip
    for each in broken[:TOLD_FAULTS]:
        say(f"  {each}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
