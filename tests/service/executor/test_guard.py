"""The real pair of processes: whatever dies or hangs, no engine outlives it, and the next life says what was lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor.guard import LOCKED_EXIT
from executor.processes import procfs
from shared.contracts.providers import Provider
from tests.service.executor.kit import BOUND, ROOT, Outside, executor_outside, is_running, until

SETSID = {"spawn": ["sleep", "300"], "setsid": True}
UNMARKED = {"spawn": ["env", "-i", "sleep", "300"], "setsid": True}


def script(*steps: dict[str, Any]) -> str:
    return json.dumps({"script": list(steps)})


async def living(executor: Outside, *steps: dict[str, Any], run_id: str = "run_1") -> list[int]:
    """A run that hangs after those steps, and the pids of its engine and of what it spawned."""
    await executor.begin(script(*steps, {"say": "up"}, {"hang": True}), run_id)
    spawned: list[int] = []
    async for text in messages(executor, run_id):
        if text == "up":
            break
        if text.startswith("spawned "):
            spawned.append(int(text.split()[1]))
    assert len(spawned) == len([step for step in steps if "spawn" in step])
    return [(await executor.show(run_id))["pid"], *spawned]


async def messages(executor: Outside, run_id: str) -> AsyncIterator[str]:
    seen = 0
    while True:
        events = await executor.events(run_id, cursor=seen, until="message.completed")
        seen = events[-1]["executorCursor"]
        for event in events:
            if event["kind"] == "message.completed":
                yield event["data"]["text"]


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(is_running(pid) for pid in pids))


async def test_a_killed_executor_leaves_nothing_and_the_guard_ends_with_an_error(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID, UNMARKED)
        os.kill(executor.pid, signal.SIGKILL)
        await until(lambda: executor.guard.poll() is not None)
        assert executor.guard.returncode == 1
        assert not any(is_running(pid) for pid in pids)
        assert executor.marked() == []


async def test_after_a_restart_the_attempt_is_told_to_its_end_as_lost(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        await living(executor, SETSID)
        instance = (await executor.show())["instance"]
        before = await executor.events(until="message.completed")
        os.kill(executor.pid, signal.SIGKILL)
        await until(lambda: executor.guard.poll() is not None)
    async with executor_outside(tmp_path) as executor:
        events = await executor.events()
        assert events[: len(before)] == before
        assert (events[-1]["data"]["outcome"], events[-1]["data"]["errorCode"]) == ("lost", "executor_lost")
        assert (await executor.http.get("/executor")).json()["instance"] != instance
        assert (await executor.show())["instance"] == instance
        again = await executor.start("hello")
        assert (again.status_code, again.json()["instance"]) == (200, instance)
        quote = {"instance": instance, "clockMs": 1}
        renewal = {"quote": quote, "attempts": [{"runId": "run_1", "attempt": 1}]}
        answer = (await executor.http.post("/provider-runs/renew", json=renewal)).json()
        assert answer["unknown"] == [{"runId": "run_1", "attempt": 1}]
    async with executor_outside(tmp_path) as executor:
        assert await executor.events() == events, "told once, not again at every start"


async def test_a_hanging_executor_is_ended_by_its_guard(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID)
        os.kill(executor.pid, signal.SIGSTOP)
        await until(lambda: executor.guard.poll() is not None)
        assert executor.guard.returncode == 1
        assert not any(is_running(pid) for pid in pids)


async def test_a_guard_that_was_paused_blames_nobody(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor)
        executor.guard.send_signal(signal.SIGSTOP)
        start = now = (await executor.http.get("/executor")).json()
        while now["clockMs"] < start["clockMs"] + 7_000:
            quote = {"instance": now["instance"], "clockMs": now["clockMs"]}
            renewal = {"quote": quote, "attempts": [{"runId": "run_1", "attempt": 1}]}
            now = (await executor.http.post("/provider-runs/renew", json=renewal)).json()
        executor.guard.send_signal(signal.SIGCONT)
        beat = executor.state.heartbeat.read_text()
        await until(lambda: executor.state.heartbeat.read_text() != beat)
        assert executor.guard.poll() is None
        assert all(is_running(pid) for pid in pids)


async def test_a_killed_guard_takes_its_executor_with_it_and_the_next_one_sweeps(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID, UNMARKED)
        old = executor.pid
        seen = executor.state.seen
        await until(lambda: seen.exists() and all(f"{pid} " in seen.read_text() for pid in pids))
        os.kill(old, signal.SIGSTOP)  # nor can it clean up after itself
        executor.guard.kill()
        executor.guard.wait()
    async with executor_outside(tmp_path) as executor:
        assert not any(is_running(pid) for pid in [old, *pids])
        assert executor.pid != old


async def test_the_next_guard_needs_no_note_for_what_carries_the_mark(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID)
        await both_killed(executor)
        executor.state.seen.unlink(missing_ok=True)
    async with executor_outside(tmp_path):
        assert not any(is_running(pid) for pid in pids)


async def test_the_next_guard_knows_an_orphan_without_mark_by_the_note_of_the_last(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        await living(executor, {"spawn": ["sh", "-c", "env -i setsid sleep 300 & exec true"], "setsid": True})
        await until(lambda: orphans(tmp_path))
        (orphan,) = orphans(tmp_path)
        seen = executor.state.seen
        await until(lambda: seen.exists() and f"{orphan} " in seen.read_text())
        await both_killed(executor)
        assert is_running(orphan)
    async with executor_outside(tmp_path):
        assert not is_running(orphan)


async def both_killed(executor: Outside) -> None:
    os.kill(executor.pid, signal.SIGSTOP)  # it must not clean up after its guard
    executor.guard.kill()
    executor.guard.wait()
    os.kill(executor.pid, signal.SIGKILL)


async def test_an_executor_that_was_paused_does_not_blame_its_engine_for_silence(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        ticks = {"repeat": {"count": 60, "everyMs": 50, "say": "tick {i}"}}
        await executor.begin(script(ticks), timeouts={"idleMs": 400})
        await executor.events(until="message.completed")
        os.kill(executor.pid, signal.SIGSTOP)
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 1)
        os.kill(executor.pid, signal.SIGCONT)
        assert (await executor.ended())["outcome"] == "success"


async def test_an_executor_whose_guard_is_killed_ends_in_order(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID)
        old = executor.pid
        executor.guard.kill()
        executor.guard.wait()
        await gone([old, *pids])
    async with executor_outside(tmp_path) as executor:
        assert (await executor.ended())["errorMessage"] == "the executor is stopping"


async def test_a_stop_ends_everything_in_order_and_well(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, SETSID, UNMARKED, {"ignoreTerm": True})
        executor.guard.send_signal(signal.SIGINT)
        await until(lambda: executor.guard.poll() is not None)
        assert executor.guard.returncode == 0
        assert not any(is_running(pid) for pid in pids)
        assert not executor.state.pid.exists()
    async with executor_outside(tmp_path) as executor:
        ended = await executor.ended()
        assert (ended["outcome"], ended["errorMessage"]) == ("lost", "the executor is stopping")


async def test_a_guard_ends_when_whoever_started_it_dies(tmp_path: Path) -> None:
    starter = "import subprocess, sys; subprocess.Popen([sys.executable, '-m', 'executor']); sys.stdin.read(1)"
    env = {**os.environ, "EXECUTOR_STATE_DIR": str(tmp_path), "EXECUTOR_PORT": "0", "RUNYARD_AUTH": "off"}
    parent = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, env=env, stdin=subprocess.PIPE)  # noqa: ASYNC220
    pid_file, heartbeat = tmp_path / "executor.pid", tmp_path / "heartbeat"
    await until(lambda: pid_file.exists() and heartbeat.exists())
    executor = int(pid_file.read_text())
    parent.kill()
    parent.communicate()
    await gone([executor])


async def test_two_guards_never_share_a_state_directory(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor, executor_outside(tmp_path, is_ready=False) as second:
        await until(lambda: second.guard.poll() is not None)
        assert second.guard.returncode == LOCKED_EXIT
        assert is_running(executor.pid)


@pytest.mark.parametrize("shape", [SETSID, UNMARKED], ids=["setsid", "unmarked"])
async def test_an_orphan_goes_with_the_attempt_that_made_it(tmp_path: Path, shape: dict[str, Any]) -> None:
    daemon = ["sh", "-c", f"{'env -i ' if shape is UNMARKED else ''}setsid sleep 300 & exec true"]
    async with executor_outside(tmp_path) as executor:
        other = await living(executor, run_id="older")
        pids = await living(executor, {"spawn": daemon, "setsid": True}, run_id="run_1")
        await until(lambda: orphans(tmp_path))
        (orphan,) = orphans(tmp_path)
        await executor.stop()
        await executor.ended()
        assert not is_running(orphan)
        assert not is_running(pids[0])
        assert all(is_running(pid) for pid in other)


def orphans(state: Path) -> list[int]:
    """Sleepers in a workspace of this executor."""
    found: list[int] = []
    for pid, process in procfs.snapshot().items():
        try:
            place, words = os.readlink(f"/proc/{pid}/cwd"), Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if process.is_alive and words == b"sleep\x00300\x00" and place.startswith(f"{state}/"):
            found.append(pid)
    return found


async def test_a_run_whose_journal_finds_no_room_ends_alone(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        pids = await living(executor, run_id="quiet")
        resource.prlimit(executor.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        await executor.begin(script({"repeat": {"count": 5_000, "everyMs": 0, "say": "tick {i} " + "x" * 200}}))
        ended = await executor.ended()
        assert (ended["outcome"], ended["errorCode"]) == ("error", "workspace_error")
        assert is_running(pids[0])
        await executor.begin("hello", "next")
        assert (await executor.ended("next"))["outcome"] == "success"


async def open_files(executor: Outside) -> float:
    """By its own word: nobody else may look."""
    metrics = (await executor.http.get("/metrics")).text
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("process_open_fds "))


async def test_many_runs_leave_no_descriptor_no_process_and_no_zombie(tmp_path: Path) -> None:
    async with executor_outside(tmp_path) as executor:
        await executor.begin("hello", "first")
        await executor.ended("first")
        before = await open_files(executor)
        for n in range(20):
            await executor.begin(script({"spawn": ["sleep", "300"], "setsid": True}, {"say": "x"}), f"run_{n}")
            await executor.ended(f"run_{n}")
        async with asyncio.timeout(BOUND):
            while await open_files(executor) > before + 2:
                await asyncio.sleep(0.05)
        children = [each for each in procfs.snapshot().values() if each.ppid == executor.pid]
        assert children == []


async def test_scripted_mode_runs_every_provider_and_says_what_was_asked_for(tmp_path: Path) -> None:
    async with executor_outside(tmp_path, CONTROL_PLANE_PROVIDER_MODE="scripted") as executor:
        items = (await executor.http.get("/providers")).json()["items"]
        assert {item["readinessCategory"] for item in items} == {"ready"}
        assert {item["provider"] for item in items} == {provider.value for provider in Provider}
        await executor.begin("hello", provider="claude-code")
        events = await executor.events()
        assert events[0]["data"]["provider"] == "claude-code"
        assert events[0]["data"]["sandbox"] == "session+subreaper"
        assert events[-1]["data"]["result"] == "hello"


async def test_what_an_earlier_life_beat_last_is_not_held_against_this_one(tmp_path: Path) -> None:
    tmp_path.joinpath("heartbeat").write_bytes(b"%-20d %-20d\n" % (1, 1))  # a leash that lapsed long ago
    async with executor_outside(tmp_path) as executor:
        await executor.begin("hello")
        assert (await executor.ended())["outcome"] == "success"


async def test_what_runs_below_dumps_no_core_writes_no_giant_file_and_goes_first_when_memory_ends(tmp_path: Path) -> None:
    """As the whole tree inherits it; nobody below can raise it again."""
    async with executor_outside(tmp_path / "state", EXECUTOR_FILE_LIMIT_BYTES=str(2 * 1024 * 1024)) as executor:
        limits, score = _proc(executor.pid, "limits"), int(_proc(executor.pid, "oom_score_adj"))
        text = "x" * (3 * 1024 * 1024)
        await executor.begin(json.dumps({"script": [{"write": {"path": "big", "text": text}}]}))
        ended = await executor.ended()
    lines = {line[:25].strip(): line[25:].split()[:2] for line in limits.splitlines()}
    assert score >= 300
    assert lines["Max core file size"] == ["0", "0"]
    assert lines["Max file size"] == ["2097152", "2097152"]
    assert ended["outcome"] == "error"


def _proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()
