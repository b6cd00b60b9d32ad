"""``runyard up`` and ``runyard demo`` with the real services, from a shell's point of view."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from runyard.local_stack.postgres_place import choose_place
from tests.service.real_processes import BOUND_SECONDS, below, lives, until

STOP_BOUND_SECONDS = 5
RUNYARD = [sys.executable, "-m", "runyard.cli.main"]
# An engine that does not listen, with a child that left its session and its group, waiting for an answer.
STUBBORN = {"script": [{"spawn": ["sleep", "600"], "setsid": True}, {"ignoreTerm": True}, {"ask": {"prompt": "well?"}}]}


@dataclass
class Stack:
    process: subprocess.Popen[str]
    ready_file: Path

    def ready(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        ready = self.ready()
        headers = {"authorization": f"Bearer {ready['apiKey']}"}
        answer = httpx.request(method, ready["apiUrl"] + path, headers=headers, json=body or None, timeout=BOUND_SECONDS)
        return answer.raise_for_status().json()

    def status(self, run_id: str) -> str:
        return self.call("GET", f"/api/runs/{run_id}")["status"]

    def started(self, script: object, status: str) -> str:
        """A run of the scripted engine that has come to ``status``."""
        run_id = self.call("POST", "/api/runs/start", prompt=json.dumps(script), provider="scripted")["runId"]
        until(lambda: self.status(run_id) == status)
        return run_id


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="runyard-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(choose_place(made).sockets, ignore_errors=True)
    shutil.rmtree(made)


@pytest.fixture
def stack(folder: Path) -> Iterator[Stack]:
    up = start(folder)
    yield up
    if up.process.poll() is None:
        up.process.terminate()
        up.process.communicate(timeout=BOUND_SECONDS)


def start(folder: Path) -> Stack:
    ready = folder / "ready-file.json"
    ready.unlink(missing_ok=True)
    options = ["--state-dir", str(folder), "--port", "0", "--executors", "2", "--control-planes", "2", "--ready-file", str(ready)]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    process = subprocess.Popen(
        [*RUNYARD, "up", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    until(lambda: ready.exists() or process.poll() is not None)
    assert process.poll() is None, f"it did not start; see {folder / 'logs'}"
    return Stack(process, ready)


def test_the_demo_does_all_it_shows_and_leaves_nothing(folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(folder)}
    demo = subprocess.run([*RUNYARD, "demo"], capture_output=True, text=True, env=environment, timeout=BOUND_SECONDS, check=False)
    assert demo.returncode == 0, demo.stderr
    assert "A run is a row in Postgres before anything else happens." in demo.stdout
    assert "reply: blue" in demo.stdout
    assert "interaction.resolved" in demo.stderr
    assert list(folder.iterdir()) == []


def test_an_interrupted_demo_stops_its_stack_and_leaves_nothing(folder: Path) -> None:
    with subprocess.Popen(
        [*RUNYARD, "demo"], stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)}
    ) as demo:
        until(lambda: list(folder.glob("runyard-demo-*/postgres/data")))
        everything = below(demo.pid)
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=BOUND_SECONDS)
    assert (demo.returncode, "Interrupted" in stderr, "Traceback" in stderr) == (130, True, False)
    assert not [pid for pid in everything if lives(pid)]
    assert list(folder.iterdir()) == []


def test_a_demo_of_a_stack_that_cannot_start_fails(folder: Path) -> None:
    environment = {**os.environ, "RUNYARD_LOG_LEVEL": "nonsense"}
    command = [*RUNYARD, "demo", "--state-dir", str(folder)]
    demo = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=BOUND_SECONDS, check=False)
    assert demo.returncode == 1
    assert "The demo failed" in demo.stderr


def test_a_stop_in_the_middle_of_runs_is_quick_and_complete(stack: Stack) -> None:
    for _ in range(2):
        stack.started(STUBBORN, "waiting_user")
    everything = below(stack.process.pid)
    began = time.monotonic()
    stack.process.terminate()
    assert stack.process.wait(BOUND_SECONDS) == 0
    assert time.monotonic() - began < STOP_BOUND_SECONDS
    assert not [pid for pid in everything if lives(pid)]


def test_a_killed_supervisor_leaves_no_process_and_no_run_behind(stack: Stack, folder: Path) -> None:
    run_id = stack.started(STUBBORN, "waiting_user")
    everything = below(stack.process.pid)
    assert len(everything) > 10
    stack.process.kill()
    stack.process.wait()
    until(lambda: not [pid for pid in everything if lives(pid)])
    again = start(folder)
    try:
        assert again.status(run_id) == "waiting_user"
        assert again.call("POST", f"/api/runs/{run_id}/stop")["status"] in ("stopping", "canceled")
        until(lambda: again.status(run_id) == "canceled")
    finally:
        again.process.terminate()
        assert again.process.wait(BOUND_SECONDS) == 0


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["postgres", "control-plane", "executor-manager", "executor-1"])
def test_work_goes_on_after_any_service_was_killed(stack: Stack, name: str) -> None:
    pid = next(each["pid"] for each in stack.ready()["services"] if each["name"] == name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: next(each["pid"] for each in stack.ready()["services"] if each["name"] == name) != pid)
    until(lambda: _answers(stack))
    stack.started({"script": [{"say": "still here"}]}, "success")


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.call("GET", "/api/system/readiness")["ready"])
    except httpx.HTTPError:
        return False
