"""What the executor was started with is nobody's business: not an engine's, though it is of the same user."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from executor.processes import procfs
from executor.state_dir import MARK
from tests.service.executor.kit import BOUND, ROOT, executor_outside, free_port, is_quiet, is_running, until
from tests.unprivileged import AS_A_PLAIN_PROGRAM, environment_of

TOKEN = "a-token-no-engine-may-see"


async def test_no_program_of_the_same_user_reads_what_guard_and_executor_were_started_with(tmp_path: Path) -> None:
    async with executor_outside(tmp_path, wrapper=AS_A_PLAIN_PROGRAM, RUNYARD_SERVICE_TOKEN=TOKEN) as executor:
        await executor.begin(json.dumps({"script": [{"say": "up"}, {"hang": True}]}))
        await executor.said("up")
        engine = (await executor.show())["pid"]
        assert environment_of(executor.pid) is None
        assert environment_of(executor.guard.pid) is None
        seen = environment_of(engine)
        assert seen is not None, "an engine is read as before: its tree is found by its mark"
        assert TOKEN.encode() not in seen
        assert executor.state.mark.encode() in seen
        await executor.stop()
        assert (await executor.ended())["outcome"] == "canceled"


async def test_no_program_of_the_same_user_reads_what_another_service_was_started_with() -> None:
    port = free_port()
    manager = subprocess.Popen(  # noqa: ASYNC220  it must be this process's child
        [*AS_A_PLAIN_PROGRAM, sys.executable, "-m", "executor_manager"], cwd=ROOT, stdin=subprocess.DEVNULL,
        env={**os.environ, "EXECUTOR_MANAGER_PORT": str(port), "RUNYARD_SERVICE_TOKEN": TOKEN,
             "EXECUTOR_MANAGER_EXECUTORS": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        await until(lambda: not is_quiet(port))
        assert environment_of(manager.pid) is None
    finally:
        manager.terminate()
        await asyncio.to_thread(manager.wait, BOUND)


async def test_without_any_right_an_executor_still_ends_all_that_its_engines_start(tmp_path: Path) -> None:
    """A private process finds those that are not: by marks, sessions and parents."""
    steps = [{"spawn": ["sleep", "300"], "setsid": True}, {"spawn": ["env", "-i", "sleep", "300"], "setsid": True}]
    async with executor_outside(tmp_path, wrapper=AS_A_PLAIN_PROGRAM) as executor:
        await executor.begin(json.dumps({"script": [*steps, {"ask": {"prompt": "up?", "options": ["yes"]}}]}))
        said = [event["data"].get("text", "") for event in await executor.events(until="interaction.requested")]
        spawned = [int(text.split()[1]) for text in said if text.startswith("spawned ")]
        assert len(spawned) == 2
        await executor.stop()
        assert (await executor.ended())["outcome"] == "canceled"
        assert not [pid for pid in spawned if is_running(pid)]


async def test_a_guard_that_is_killed_at_once_has_noted_its_executor(tmp_path: Path) -> None:
    """Its mark cannot be read by everybody, so the next guard must know it by name."""
    async with executor_outside(tmp_path, is_ready=False) as executor:
        await until(executor.state.pid.exists)
        pid = executor.pid
        started = procfs.snapshot()[pid].start
        await until(lambda: executor.state.seen.exists() and f"{pid} {started}" in executor.state.seen.read_text())
        os.kill(executor.guard.pid, signal.SIGKILL)
    async with executor_outside(tmp_path) as executor:
        assert not is_running(pid) or procfs.snapshot()[pid].start != started
        assert procfs.variable(executor.pid, MARK) in (executor.state.mark, None)
