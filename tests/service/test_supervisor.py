"""The supervisor with real child processes: order, restarts, the ready file, and every way to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from runyard.local_stack.postgres_place import choose_place
from runyard.local_stack.processes import state_of
from tests.service.real_processes import BOUND_SECONDS, below, lives, until

STOP_BOUND_SECONDS = 5
FAKE_STACK = str(Path(__file__).with_name("fake_stack.py"))
NO_DATABASE = "postgresql://nobody@nowhere/none"


class Stack:
    """A supervisor in a process of its own, and what its ready file says."""

    def __init__(self, state: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.state = state
        self.process = subprocess.Popen(
            [sys.executable, FAKE_STACK, str(state), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def up(self) -> Stack:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n", self.ended()
        return self

    def ready(self) -> dict[str, Any]:
        return json.loads((self.state / "asked.json").read_text())

    def pid(self, name: str) -> int:
        return next(each["pid"] for each in self.ready()["services"] if each["name"] == name)

    def url(self, name: str) -> str:
        return next(each["url"] for each in self.ready()["services"] if each["name"] == name)

    def ended(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=BOUND_SECONDS)
        return self.process.returncode, stderr

    def stop(self) -> int:
        self.process.terminate()
        return self.ended()[0]


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="runyard-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(choose_place(folder).sockets, ignore_errors=True)
    shutil.rmtree(folder)


@pytest.fixture
def start(state: Path) -> Iterator[Callable[..., Stack]]:
    started: list[Stack] = []

    def start_one(*arguments: str, **options: Any) -> Stack:
        started.append(Stack(state, *arguments, **options))
        return started[-1]

    yield start_one
    for stack in started:
        if stack.process.poll() is None:
            stack.stop()
        stack.process.communicate(timeout=BOUND_SECONDS)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_ready_file_names_everything_and_only_its_owner_may_read_it(start: Callable[..., Stack], state: Path) -> None:
    stack = start().up()
    ready = stack.ready()
    assert list(ready) == ["apiUrl", "portalUrl", "apiKey", "databaseUrl", "serviceToken", "pid", "services"]
    assert [each["name"] for each in ready["services"]] == [
        "postgres", "control-plane", "control-plane-2", "executor-manager", "executor-1", "executor-2",
    ]  # fmt: skip
    assert all(set(each) == {"name", "pid", "url"} and lives(each["pid"]) for each in ready["services"])
    assert ready["apiUrl"] == stack.url("control-plane")
    assert ready["apiKey"].startswith("ry_admin_")
    assert ready["pid"] == stack.process.pid
    assert stack.pid("executor-1") == int((state / "executor-1" / "executor.pid").read_text())
    for file in (state / "asked.json", state / "ready.json", state / "secrets.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads((state / "ready.json").read_text()) == ready


def test_a_stop_ends_everything_in_time_and_takes_the_ready_file_away(start: Callable[..., Stack], state: Path) -> None:
    stack = start().up()
    everything = below(stack.process.pid)
    assert len(everything) > 7
    began = time.monotonic()
    assert stack.stop() == 0
    assert time.monotonic() - began < STOP_BOUND_SECONDS
    assert not [pid for pid in everything if lives(pid)]
    assert not (state / "asked.json").exists()
    assert not (state / "ready.json").exists()


def test_a_stop_goes_from_the_top_down(start: Callable[..., Stack], state: Path) -> None:
    assert start(NO_DATABASE).up().stop() == 0

    def told(name: str) -> int:
        return int((state / "logs" / f"{name}.log").read_text().partition("told to end at ")[2].split()[0])

    tiers = (("control-plane", "control-plane-2"), ("executor-manager",), ("executor-1", "executor-2"))
    for above, below_it in pairwise(tiers):
        assert max(map(told, above)) < min(map(told, below_it))
    for name in ("executor-1", "executor-2"):
        assert " by SIGINT\n" in (state / "logs" / f"{name}.log").read_text(), "whoever stops a stack does not wait for its runs"


def test_services_that_do_not_listen_are_ended_in_the_same_time(start: Callable[..., Stack]) -> None:
    stack = start("deaf").up()
    everything = below(stack.process.pid)
    began = time.monotonic()
    assert stack.stop() == 0
    assert time.monotonic() - began < STOP_BOUND_SECONDS
    assert not [pid for pid in everything if lives(pid)]


def test_a_killed_supervisor_leaves_no_process_and_the_next_one_starts_at_once(start: Callable[..., Stack]) -> None:
    stack = start().up()
    secrets = {name: stack.ready()[name] for name in ("apiKey", "serviceToken", "databaseUrl")}
    everything = below(stack.process.pid)
    stack.process.kill()
    again = start().up()
    assert {name: again.ready()[name] for name in secrets} == secrets
    assert again.stop() == 0
    assert not [pid for pid in everything if lives(pid)]


@pytest.mark.parametrize("name", ["control-plane-2", "executor-manager", "executor-1", "postgres"])
def test_what_is_killed_is_started_again_under_the_same_address(start: Callable[..., Stack], name: str) -> None:
    stack = start().up()
    pid, url = stack.pid(name), stack.url(name)
    others = {each["name"]: each["pid"] for each in stack.ready()["services"] if each["name"] != name}
    os.kill(pid, signal.SIGKILL)
    until(lambda: stack.pid(name) != pid)
    assert stack.url(name) == url
    until(lambda: url.startswith("postgresql") or answers(url))
    assert {each["name"]: each["pid"] for each in stack.ready()["services"] if each["name"] != name} == others


def test_what_was_stopped_for_a_while_is_ended_and_started_again(start: Callable[..., Stack]) -> None:
    stack = start(NO_DATABASE).up()
    pid = stack.pid("executor-manager")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stack.pid("executor-manager") != pid)
    assert not lives(pid)
    until(lambda: answers(stack.url("executor-manager")))


def test_a_stopped_executor_is_left_to_its_guard(start: Callable[..., Stack]) -> None:
    stack = start(NO_DATABASE).up()
    executor, manager = stack.pid("executor-1"), stack.pid("executor-manager")
    os.kill(executor, signal.SIGSTOP)
    os.kill(manager, signal.SIGSTOP)
    until(lambda: stack.pid("executor-manager") != manager)  # as long as a stop is suffered
    assert stack.pid("executor-1") == executor
    assert state_of(executor) == "T"
    os.kill(executor, signal.SIGCONT)


def test_a_service_that_cannot_start_is_reported_with_its_last_words(start: Callable[..., Stack], state: Path) -> None:
    stack = start("broken", NO_DATABASE)
    code, stderr = stack.ended()
    assert code == 1
    assert "executor-manager ends at start" in stderr
    assert "nothing here works" in stderr
    assert not (state / "ready.json").exists()


def test_a_second_supervisor_on_the_same_state_is_refused(start: Callable[..., Stack]) -> None:
    first = start(NO_DATABASE).up()
    code, stderr = start(NO_DATABASE).ended()
    assert code == 1
    assert "another runyard up works in" in stderr
    assert answers(first.url("control-plane"))


def test_with_a_database_url_no_postgres_is_started(start: Callable[..., Stack], state: Path) -> None:
    stack = start(NO_DATABASE).up()
    assert "postgres" not in [each["name"] for each in stack.ready()["services"]]
    assert not (state / "postgres").exists()


def environments(stack: Stack, *names: str) -> list[dict[str, str]]:
    return [httpx.get(f"{stack.url(name)}/environment", trust_env=False).json() for name in names]


def test_a_service_gets_what_it_needs_of_the_environment_and_no_more(start: Callable[..., Stack], state: Path) -> None:
    given = {
        "OPENAI_API_KEY": "sk-1", "AWS_SECRET_ACCESS_KEY": "no", "CONTROL_PLANE_PROVIDER_MODE": "scripted", "EXECUTOR_SLOTS": "8",
        "RUNYARD_API_KEY": "ry_callers_own", "EXECUTOR_MANAGER_POLL_MS": "5",
    }  # fmt: skip
    stack = start(NO_DATABASE, environment=given).up()
    plane, manager, executor = environments(stack, "control-plane", "executor-manager", "executor-2")
    for environment in (plane, manager, executor):
        assert environment["RUNYARD_SERVICE_TOKEN"] == stack.ready()["serviceToken"]
        assert environment["CONTROL_PLANE_PROVIDER_MODE"] == "scripted"
        assert not {"AWS_SECRET_ACCESS_KEY", "RUNYARD_API_KEY"} & set(environment)
    assert plane["DATABASE_URL"] == NO_DATABASE
    assert plane["RUNYARD_ADMIN_KEY"] == stack.ready()["apiKey"]
    assert plane["EXECUTOR_MANAGER_URLS"] == stack.url("executor-manager")
    assert manager["EXECUTOR_MANAGER_EXECUTORS"] == f"{stack.url('executor-1')},{stack.url('executor-2')}"
    assert manager["EXECUTOR_MANAGER_POLL_MS"] == "5"
    assert executor["EXECUTOR_ID"] == "executor-2"
    assert executor["EXECUTOR_STATE_DIR"] == str(state / "executor-2")
    assert executor["EXECUTOR_WORKSPACE_ROOT"] == str(state / "workspaces")
    assert (executor["OPENAI_API_KEY"], executor["EXECUTOR_SLOTS"]) == ("sk-1", "8")
    assert not {"DATABASE_URL", "RUNYARD_ADMIN_KEY", "EXECUTOR_MANAGER_POLL_MS"} & set(executor)
    assert not {"OPENAI_API_KEY", "RUNYARD_ADMIN_KEY", "DATABASE_URL"} & set(manager)
    assert "OPENAI_API_KEY" not in plane


def test_what_an_operator_set_for_executors_stays_so(start: Callable[..., Stack], state: Path) -> None:
    given = {
        "EXECUTOR_PRIVATE_PATHS": "/srv/hidden,secrets", "EXECUTOR_WORKSPACE_ROOT": "/srv/work", "EXECUTOR_ENGINES_DIR": "mine",
        "RUNYARD_ENGINES_DIR": "/srv/others", "EXECUTOR_SNAPSHOT_STORE": "s3://bucket/x", "AWS_SECRET_ACCESS_KEY": "signs in",
        "EXECUTOR_CREDENTIALS_DIR": "creds", "EXECUTOR_PRICES": "mine.toml",
    }  # fmt: skip
    stack = start(NO_DATABASE, environment=given).up()
    executor, plane = environments(stack, "executor-1", "control-plane")
    assert executor["EXECUTOR_PRIVATE_PATHS"] == f"/srv/hidden,{Path('secrets').absolute()},{state}"
    assert executor["EXECUTOR_WORKSPACE_ROOT"] == "/srv/work"
    assert executor["EXECUTOR_ENGINES_DIR"] == str(Path("mine").absolute())
    assert executor["EXECUTOR_CREDENTIALS_DIR"] == str(Path("creds").absolute())
    assert executor["EXECUTOR_PRICES"] == str(Path("mine.toml").absolute())
    assert executor["AWS_SECRET_ACCESS_KEY"] == "signs in"
    assert "AWS_SECRET_ACCESS_KEY" not in plane


def test_a_database_and_its_password_may_stand_in_files(start: Callable[..., Stack], state: Path, tmp_path: Path) -> None:
    for name, secret in (("url", "postgresql://nobody@nowhere/none"), ("password", "opens it")):
        (tmp_path / name).write_text(f"{secret}\n")
    given = {"DATABASE_URL_FILE": str(tmp_path / "url"), "DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    stack = start(environment=given).up()
    [plane] = environments(stack, "control-plane")
    assert (plane["DATABASE_URL"], plane["DATABASE_PASSWORD"]) == ("postgresql://nobody@nowhere/none", "opens it")
    assert not (state / "postgres").exists()


def test_a_database_that_is_named_twice_is_refused(start: Callable[..., Stack], state: Path) -> None:
    code, stderr = start(NO_DATABASE, environment={"DATABASE_URL": NO_DATABASE, "DATABASE_URL_FILE": "/nowhere"}).ended()
    assert (code, "DATABASE_URL and DATABASE_URL_FILE are both set" in stderr) == (1, True)


def test_the_password_of_another_database_is_not_given_to_the_embedded_one(start: Callable[..., Stack]) -> None:
    [plane] = environments(start(environment={"DATABASE_PASSWORD": "of another"}).up(), "control-plane")
    assert "DATABASE_PASSWORD" not in plane


def test_a_ready_file_that_cannot_be_written_any_more_does_not_end_the_stack(start: Callable[..., Stack], state: Path) -> None:
    stack = start(NO_DATABASE).up()
    before, url = stack.pid("executor-manager"), stack.url("executor-manager")
    for name in ("ready.json", "asked.json"):
        (state / name).unlink()
        (state / name).mkdir()
    os.kill(before, signal.SIGKILL)
    until(lambda: not lives(before))
    until(lambda: _is_up(url))
    assert stack.process.poll() is None
    for name in ("ready.json", "asked.json"):
        (state / name).rmdir()
    until(lambda: (state / "asked.json").exists())
    assert stack.pid("executor-manager") != before
    assert stack.stop() == 0


def test_a_ready_file_that_cannot_be_taken_away_does_not_keep_the_stack_from_ending(
    start: Callable[..., Stack], state: Path
) -> None:
    stack = start("deaf", NO_DATABASE).up()
    everything = below(stack.process.pid)
    (state / "ready.json").unlink()
    (state / "ready.json").mkdir()
    assert stack.stop() != 0
    assert not [pid for pid in everything if lives(pid)]


def test_a_terminal_that_is_closed_ends_the_stack_as_a_stop_does(start: Callable[..., Stack], state: Path) -> None:
    stack = start(NO_DATABASE).up()
    stack.process.send_signal(signal.SIGHUP)
    assert stack.ended()[0] == 0
    assert not (state / "ready.json").exists()


def test_under_nohup_the_stack_outlives_its_terminal(start: Callable[..., Stack]) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup hands it on
    try:
        stack = start(NO_DATABASE)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    before = stack.up().pid("executor-manager")
    stack.process.send_signal(signal.SIGHUP)
    os.kill(before, signal.SIGKILL)
    until(lambda: stack.pid("executor-manager") != before)
    assert stack.stop() == 0


def test_a_supervisor_nobody_listens_to_any_more_goes_on(start: Callable[..., Stack], state: Path) -> None:
    stack = start(NO_DATABASE).up()
    before = stack.pid("executor-manager")
    assert stack.process.stderr is not None
    stack.process.stderr.close()
    os.kill(before, signal.SIGKILL)
    until(lambda: stack.pid("executor-manager") != before)
    until(lambda: _is_up(stack.url("executor-manager")))
    stack.process.terminate()
    assert stack.process.wait(BOUND_SECONDS) == 0


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
