"""All processes of an executor's machine are frozen (a cgroup, a host without time) and go on after their attempt was counted
lost: nothing of what was frozen there works on, and nothing it says counts any more.

The machine's clocks go on meanwhile. They do not for a machine that sleeps: that leashes lapse there too is tested with such a
clock, beside the guard and the executor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.deaths import LOAD_SECONDS, TRUE_STATUS_SECONDS, cmdline, executor_of, until_said
from tests.e2e.kit import Stack, processes_with, script, soon

pytestmark = pytest.mark.chaos

# It notices by itself on waking: its guard looks four times a second, its leashes are as old as the pause.
ENDED_SECONDS = 5.0
# A whole minute of ticks, so that only waking, and not the end of its work, can end it.
TICKING = script({"spawn": ["sleep", "600"], "setsid": True}, {"repeat": {"count": 3000, "everyMs": 20, "say": "tick {i}"}})


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def paused(pids: Sequence[int]) -> Generator[None]:
    """In this order, so that nobody sees another one stop; on again in the other one, the engine first."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


async def test_a_machine_that_wakes_after_its_attempt_was_lost_ends_what_it_froze(stack: Stack) -> None:
    run_id = await stack.start(TICKING, retry={"afterSideEffects": True})
    async with stack.stream(run_id) as frames:
        await until_said(frames, b"tick 5")
    executor = await executor_of(stack, run_id)
    frozen = processes_with("RUNYARD_RUN", f"{run_id}.1")
    assert any(b"scripted" in cmdline(pid) for pid in frozen)
    server = stack.pid(executor)
    # the supervisor belongs to the machine; it would end what it sees stopped
    with paused([stack.process.pid, parent_of(server), server, *frozen]):
        await another_attempt(stack, run_id)
        assert await executor_of(stack, run_id) != executor
        assert set(frozen) <= set(processes_with("RUNYARD_RUN", f"{run_id}.1")), "they were to sleep, not to end"
    assert soon(lambda: not processes_with("RUNYARD_RUN", f"{run_id}.1"), ENDED_SECONDS + LOAD_SECONDS)
    assert (await stack.until(run_id))["status"] == "success"
    events = await stack.check(run_id)
    kinds = [(each["kind"], each["attempt"]) for each in events]
    assert not any(attempt == 1 for _, attempt in kinds[kinds.index(("attempt.started", 2)) :])
    assert kinds.count(("attempt.lost", 1)) == 1
    assert (await stack.until(await stack.start("hello")))["status"] == "success"


async def another_attempt(stack: Stack, run_id: str) -> None:
    """Until the run works on under its second attempt."""
    deadline = time.monotonic() + TRUE_STATUS_SECONDS + 2 * LOAD_SECONDS
    while not any(each["kind"] == "message.completed" and each["attempt"] == 2 for each in await stack.events(run_id)):
        assert time.monotonic() < deadline, [(each["kind"], each["attempt"]) for each in (await stack.events(run_id))[-5:]]
        await asyncio.sleep(0.2)  # polling a condition with a bound
