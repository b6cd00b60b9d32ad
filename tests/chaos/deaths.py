"""What it takes to kill or freeze one part of a running stack, and to see what becomes of a run meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from tests.e2e.kit import Frames, Stack, processes_with, script

TRUE_STATUS_SECONDS = 15.0
LOAD_SECONDS = 10.0  # on top, for a machine that does other work
BUSY = script(
    {"spawn": ["sleep", "600"], "setsid": True}, {"say": "up"}, {"repeat": {"count": 600, "everyMs": 20, "say": "tick {i}"}}
)
ASKING = script({"spawn": ["sleep", "600"], "setsid": True}, {"ask": {"prompt": "?"}}, {"say": "after"})


async def in_mid_run(stack: Stack) -> str:
    run_id = await stack.start(BUSY)
    async with stack.stream(run_id) as frames:
        await until_said(frames, b"tick 5")
    return run_id


async def until_said(frames: Frames, text: bytes) -> None:
    async for frame in frames:
        if text in frame.data:
            return
    raise AssertionError(f"the stream ended before {text!r}")


async def in_a_question(stack: Stack) -> tuple[str, str]:
    run_id = await stack.start(ASKING)
    return run_id, (await stack.question(run_id))["questionId"]


def strike(stack: Stack, service: str, how: signal.Signals) -> int:
    pid = stack.pid(service)
    os.kill(pid, how)
    return pid


async def back(stack: Stack, service: str, old: int) -> None:
    """The service has a new process and answers."""

    async def ready() -> bool:
        if stack.pid(service) == old:
            return False
        chain = await stack.client.get("/api/system/readiness")
        return chain.status_code == 200 and chain.json()["ready"]

    deadline = time.monotonic() + 60
    while True:
        try:
            if await ready():
                return
        except Exception:  # noqa: BLE001 - the stack is being restarted
            pass
        assert time.monotonic() < deadline, f"{service} did not come back"
        await asyncio.sleep(0.1)  # polling a condition with a bound


class Watch:
    """Looks at the engine processes of a run while a block runs: who was seen, and how many at once at most."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.most = 0
        self.seen: set[int] = set()

    async def __aenter__(self) -> Watch:
        self._task = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            engines = [pid for pid in processes_with("RUNYARD_RUN", f"{self._run_id}.") if b"scripted" in cmdline(pid)]
            self.most = max(self.most, len(engines))
            self.seen.update(engines)
            await asyncio.sleep(0.05)  # sampling


def cmdline(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


async def executor_of(stack: Stack, run_id: str) -> str:
    """The name of the executor of its newest attempt."""
    return [each["data"]["executorId"] for each in await stack.events(run_id) if each["kind"] == "attempt.started"][-1]
