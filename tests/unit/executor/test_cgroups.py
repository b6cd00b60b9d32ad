"""Where runs get cgroups, what is written into them, and what is said where there are none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.adapters.base import Outcome
from executor.attempts.prepare import memory_judged
from executor.processes.cgroups import SERVICES, Cgroup, Cgroups, cgroups
from executor.workspaces.tree_removal import remove_tree
from shared.contracts.events import AttemptOutcome
from shared.errors import ErrorCode
from tests.cgroup_trees import looks_like_one, mounted, real_cgroup
from tests.deep_folders import a_bomb
from tests.service.executor.kit import is_running, wait_until

BOUND = 256 * 1024 * 1024
MARK = "0123456789abcdef0123"


def test_a_run_gets_its_own_with_the_bound_and_no_swap(tmp_path: Path) -> None:
    found = cgroups(looks_like_one(tmp_path / "cg"), BOUND, MARK, None)
    assert (found.facts, found.reason) == (("cgroup", "memory-limit"), "")
    one, other = found.of("run_1.1"), found.of("run_1.2")
    assert one is not None
    assert other is not None
    assert one.path != other.path
    assert one.path.parent == tmp_path / "cg"
    one.path.mkdir()
    (one.path / "memory.swap.max").write_text("max")
    one.make()
    assert (one.path / "memory.max").read_text() == str(BOUND)
    assert (one.path / "memory.swap.max").read_text() == "0ax"  # a plain file keeps its rest; the kernel's does not


def test_without_a_bound_nothing_is_divided_and_nothing_is_said_of_one(tmp_path: Path) -> None:
    root = looks_like_one(tmp_path / "cg", divided="", inside=str(os.getpid()))
    found = cgroups(root, None, MARK, None)
    assert (found.facts, found.reason) == (("cgroup",), "")
    assert (root / "cgroup.subtree_control").read_text() == ""
    assert not (root / SERVICES).exists()


def test_our_own_processes_step_aside_so_that_memory_can_be_divided(tmp_path: Path) -> None:
    root = looks_like_one(tmp_path / "cg", divided="cpu", inside=f"{os.getpid()}\n{os.getppid()}\n")
    found = cgroups(root, BOUND, MARK, os.getppid())
    assert found.memory_bytes == BOUND
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    assert (root / SERVICES / "cgroup.procs").read_text() in (str(os.getpid()), str(os.getppid()))


@pytest.mark.parametrize(("controllers", "inside"), [("cpu pids", ""), ("cpu memory", "1\n")])
def test_a_bound_that_cannot_be_had_is_told(tmp_path: Path, controllers: str, inside: str) -> None:
    root = looks_like_one(tmp_path / "cg", controllers, divided="", inside=inside)
    found = cgroups(root, BOUND, MARK, None)
    assert found.facts == ("cgroup", "no-memory-limit")
    assert found.reason.endswith("cannot bound memory")
    assert not (root / SERVICES).exists(), "a process of somebody else is never moved"


@pytest.mark.parametrize("missing", ["cgroup.procs", "cgroup.events"])
def test_what_is_no_cgroup_or_the_machines_root_is_left_alone(tmp_path: Path, missing: str) -> None:
    root = looks_like_one(tmp_path / "cg")
    (root / missing).unlink()
    found = cgroups(root, BOUND, MARK, None)
    assert (found.root, found.of("run_1.1"), found.facts) == (None, None, ("no-memory-limit",))
    assert str(root) in found.reason
    found.sweep()


def test_where_there_are_none_and_no_bound_was_asked_for_nothing_is_said(tmp_path: Path) -> None:
    assert cgroups(tmp_path / "nowhere", None, MARK, None).facts == ()


def test_this_process_is_asked_of_its_own_and_never_fails_for_it() -> None:
    found = cgroups(None, None, MARK, None)
    assert (found.root is None) == bool(found.reason)


@pytest.mark.parametrize(
    ("events", "code", "judged"),
    [
        ("low 0\noom 2\noom_kill 1\n", ErrorCode.ENGINE_EXIT_NONZERO, ErrorCode.ENGINE_OOM),
        ("oom_kill 1\n", ErrorCode.ENGINE_NO_OUTPUT, ErrorCode.ENGINE_OOM),
        ("oom_kill 1\n", ErrorCode.AUTH_FAILED, ErrorCode.AUTH_FAILED),
        ("oom 3\noom_kill 0\n", ErrorCode.ENGINE_EXIT_NONZERO, ErrorCode.ENGINE_EXIT_NONZERO),
        ("", ErrorCode.ENGINE_EXIT_NONZERO, ErrorCode.ENGINE_EXIT_NONZERO),
    ],
)
def test_an_engine_the_kernel_ended_ran_out_of_memory(tmp_path: Path, events: str, code: ErrorCode, judged: ErrorCode) -> None:
    cgroup = Cgroup(tmp_path, BOUND)
    (tmp_path / "memory.events").write_text(events)
    cgroup.close()
    outcome = memory_judged(Outcome(AttemptOutcome.ERROR, code, "the engine was ended by SIGKILL"), cgroup)
    assert outcome.error_code is judged
    if judged is ErrorCode.ENGINE_OOM:
        said = f"the run passed its {BOUND} bytes of memory (memory.events: oom_kill 1); the engine was ended by SIGKILL"
        assert outcome.error_message == said


def test_a_success_stays_one_though_a_tool_was_ended_for_its_memory(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path, BOUND)
    cgroup.oom_kills = 3
    done = Outcome(AttemptOutcome.SUCCESS, result="42")
    assert memory_judged(done, cgroup) is done
    assert memory_judged(done, None) is done


# ---- the kernel's own ----


@pytest.fixture
def root() -> Iterator[Path]:
    if mounted() is None:
        pytest.skip("no cgroup of version 2 can be made here")
    with real_cgroup() as path:
        yield path


def test_a_process_enters_before_its_first_instruction_and_is_listed_with_all_it_starts(root: Path) -> None:
    one = Cgroups(root, mark=MARK).of("run_1.1")
    assert one is not None
    one.make()
    script = "setsid env -i sleep 300 & exec sleep 300"
    process = subprocess.Popen(one.entered(("/bin/sh", "-c", script)))
    try:
        wait_until(lambda: len(one.pids()) == 2 and process.pid in one.pids())
        pids = one.pids()
        one.kill()
        wait_until(lambda: not any(is_running(pid) for pid in pids))
    finally:
        process.kill()
        process.wait()
    one.close()
    assert not one.path.exists()


def test_what_an_earlier_life_left_is_ended_and_removed(root: Path) -> None:
    mine, others = Cgroups(root, mark=MARK).of("run_1.1"), Cgroups(root, mark="another-executor").of("run_1.1")
    assert mine is not None
    assert others is not None
    mine.make()
    others.make()
    (mine.path / "made-by-an-engine").mkdir()
    Cgroups(root, mark=MARK).sweep()
    assert not mine.path.exists()
    assert others.path.exists()


def test_cgroups_in_each_other_are_looked_through_whatever_their_depth(tmp_path: Path) -> None:
    a_bomb(tmp_path / "deep")
    assert Cgroup(tmp_path / "deep", None).pids() == []
    remove_tree(tmp_path / "deep")
