"""``python -m tests.chaos.rolling``: a rolling restart of every service of a busy stack, as an operator does it.

Each one is told to end (SIGTERM) and waited for, as whoever runs containers does; nobody drains anything by hand. Ends with 1
when a run failed, an attempt was lost that did not wait for a person, or a client saw a gap.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from shared.server import allow_open_files
from tests.chaos.storm.__main__ import STACK, say
from tests.chaos.storm.clients import Followed
from tests.chaos.storm.weather import Force, Storm, storm
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack

DRAIN_SECONDS = 180
BACK_SECONDS = 60.0
_EXECUTOR = re.compile(r"executor-\d+")


async def rolling(stack: Stack, force: Force) -> tuple[Storm, list[str]]:
    """What happened while every service was restarted once, and in which order they were."""
    restarted: list[str] = []

    async def trouble(_: Storm) -> None:
        await asyncio.sleep(2)  # so that runs are in their middle
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            for service in sorted(stack.facts["services"], key=lambda each: _EXECUTOR.fullmatch(each["name"]) is not None):
                if service["name"] != "postgres":
                    await _restart(stack, service["name"], http)
                    restarted.append(service["name"])

    happened = await storm(stack, force, trouble)
    happened.broken += [fault for run in happened.followed for fault in _faults(run)]
    return happened, restarted


def _faults(run: Followed) -> list[str]:
    """Whoever waited for what could finish lost no attempt of it: only one that asked a person had to make way."""
    found = [] if run.ended == "success" else [f"{run.run_id} ended as {run.ended}: {_last_words(run)}"]
    asked = True
    for event in (frame.event for frame in run.frames):
        if event == b"attempt.started":
            found += [] if asked else [f"{run.run_id} lost an attempt that worked"]
            asked = False
        asked = asked or event == b"interaction.requested"
    return found


def _last_words(run: Followed) -> str:
    """Which attempt was the last, and what was told of its end."""
    data = json.loads(run.frames[-1].data)["data"] if run.frames else {}
    attempts = sum(frame.event == b"attempt.started" for frame in run.frames)
    return f"attempt {attempts}, {data.get('errorCode')}: {data.get('errorMessage')}"


async def _restart(stack: Stack, name: str, http: httpx.AsyncClient) -> None:
    old = stack.pid(name)
    told = parent(old) if _EXECUTOR.fullmatch(name) else old  # its guard: that is what was started
    os.kill(told, signal.SIGTERM)
    await _until(lambda: _is_back(stack, name, old, http), DRAIN_SECONDS + BACK_SECONDS, f"{name} is back")


async def _is_back(stack: Stack, name: str, old: int, http: httpx.AsyncClient) -> bool:
    service = next(each for each in stack.facts["services"] if each["name"] == name)
    try:
        return service["pid"] != old and (await http.get(f"{service['url']}/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


async def _until(is_so: Callable[[], Awaitable[bool]], within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not await is_so():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.1)  # polling a condition with a bound


def environment(runs: int) -> dict[str, str]:
    """Of a stack in which each executor can run them all, and is given the time to finish them."""
    return {"EXECUTOR_SLOTS": str(runs), "EXECUTOR_DRAIN_SECONDS": str(DRAIN_SECONDS)}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling", description="Restart every service of a busy stack.")
    parser.add_argument("--runs", type=int, default=200, help="at once, each with a client that follows it; default 200")
    parser.add_argument("--ticks", type=int, default=60, help="a ticking run says at most so many, two a second; default 60")
    parser.add_argument("--logs", type=Path, help="a new folder for what the services logged")
    given = parser.parse_args()
    allow_open_files()
    with make_folder() as folder:
        with running_stack(folder / "state", *STACK, environment=environment(given.runs)) as stack:
            happened, restarted = asyncio.run(rolling(stack, Force(seed=1, kills=0, runs=given.runs, ticks=given.ticks)))
        if given.logs:
            shutil.copytree(folder / "state" / "logs", given.logs)
    say(f"restarted {', '.join(restarted)}: {happened.summary()}")
    for broken in happened.broken[:20]:
        say(f"  {broken}")
    return 1 if happened.broken else 0


if __name__ == "__main__":
    sys.exit(main())
