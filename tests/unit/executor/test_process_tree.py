"""Trees of real processes, without an executor around them."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from executor.adapters.base import STDOUT
from executor.processes import engine_process, process_tree, procfs
from executor.processes.cgroups import Cgroup
from executor.processes.engine_process import Launch
from executor.processes.process_tree import Forest
from executor.state_dir import MARK, RUN_MARK
from tests.service.executor.kit import is_running, until
from tests.unit.executor.trees import OUR_MARK, Heard, ended, planted


def session_nice(pid: str) -> str | None:
    """Of the session of a process, where the machine is shared by session."""
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().split()[-1]
    except (OSError, IndexError):
        return None


def may_say_so_of_every_session() -> bool:
    """From anybody without CAP_SYS_ADMIN the kernel takes one session's value in 100 ms, whoever asks it on this machine."""
    own = Path("/proc/self/autogroup")
    try:
        for _ in range(2):
            own.write_text(own.read_text().split()[-1])
    except OSError:
        return False
    return True


async def test_a_tree_that_obeys_is_gone_soon(forest: Forest, tmp_path: Path) -> None:
    took: list[float] = []
    for _ in range(5):
        process, tree, heard = await planted(forest, "sleep 300 & echo $!; wait", tmp_path)
        (child,) = await heard.lines(1)
        took.append(await ended(forest, process, tree))
        assert not is_running(int(child))
    assert sorted(took)[2] < 1.0


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM; sleep 300 & echo $!; wait",
        "setsid sleep 300 & echo $!; wait",
        "env -i setsid sleep 300 & echo $!; wait",
        "(setsid sh -c 'echo $$; exec sleep 300' &) ; sleep 300",
        "sh -c 'sleep 300 & echo $!; exit' ; sleep 300",
        "sh -c 'env -i sleep 300 & echo $!; exit' ; sleep 300",
    ],
)
async def test_nothing_of_a_tree_is_left(forest: Forest, tmp_path: Path, script: str) -> None:
    process, tree, heard = await planted(forest, script, tmp_path)
    (child,) = await heard.lines(1)
    await until(lambda: Path(f"/proc/{child}/cmdline").read_bytes() == b"sleep\x00300\x00")
    await ended(forest, process, tree, grace=0.2)
    assert not is_running(int(child))
    assert not is_running(process.pid)


async def test_a_child_is_remembered_when_its_parents_are_gone(forest: Forest, tmp_path: Path) -> None:
    process, tree, heard = await planted(forest, "env -i setsid sh -c 'sleep 300 & echo $!; read x' ; sleep 300", tmp_path)
    (child,) = await heard.lines(1)
    await forest.census()
    before = procfs.read_process(int(child))
    assert before is not None
    process.send(b"go\n")  # its parent ends: no mark, no session, no parent leads to it any more
    await until(lambda: (now := procfs.read_process(int(child))) is None or now.ppid != before.ppid)
    await ended(forest, process, tree)
    assert not is_running(int(child))


async def test_an_engine_and_what_it_starts_have_less_claim_to_the_processor_than_the_executor(
    forest: Forest, tmp_path: Path
) -> None:
    process, tree, heard = await planted(forest, "read x; sleep 300 & echo $!; wait", tmp_path)
    process.send(b"go\n")
    (child,) = await heard.lines(1)
    claims = {os.getpriority(os.PRIO_PROCESS, pid) for pid in (process.pid, int(child))}
    of_the_session = session_nice(child)
    await ended(forest, process, tree)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert claims == {min(own + 10, 19)}
    assert of_the_session in (str(min(own + 10, 19)), None) or not may_say_so_of_every_session()


async def test_two_trees_do_not_touch_each_other(forest: Forest, tmp_path: Path) -> None:
    one, first, _ = await planted(forest, "sleep 300", tmp_path / ".", "run.1")
    two, second, _ = await planted(forest, "setsid sleep 300 & sleep 300", tmp_path, "run.2")
    await ended(forest, one, first)
    assert is_running(two.pid)
    await ended(forest, two, second)


async def test_another_executor_that_knows_the_same_run_is_left_alone(forest: Forest, tmp_path: Path) -> None:
    another = Forest("another")
    ours, tree, _ = await planted(forest, "sleep 300", tmp_path)
    env = {"PATH": os.environ["PATH"], MARK: "another", RUN_MARK: "run.1"}
    theirs, their_tree = await another.plant(Launch(("/bin/sleep", "300"), env, str(tmp_path)), Heard(), "run.1")
    await ended(forest, ours, tree)
    assert is_running(theirs.pid)
    await ended(another, theirs, their_tree)
    another.close()


async def test_an_exit_is_noticed_while_a_grandchild_holds_the_pipes(forest: Forest, tmp_path: Path) -> None:
    process, tree, heard = await planted(forest, "sleep 300 & exit 3", tmp_path)
    async with asyncio.timeout(10):
        while process.exit_code is None:
            heard.changed.clear()
            await heard.changed.wait()
    assert (process.exit_code, process.has_open_output) == (3, True)
    assert procfs.read_process(process.pid) is not None, "unreaped, so that its pid cannot be another's"
    await ended(forest, process, tree)


async def test_a_paused_process_blocks_and_loses_nothing(forest: Forest, tmp_path: Path) -> None:
    process, tree, heard = await planted(forest, "head -c 3000000 /dev/zero", tmp_path)
    process.pause()
    before = len(heard.output[STDOUT])
    await until(process.has_waiting_output)
    assert (process.exit_code, len(heard.output[STDOUT])) == (None, before)
    process.resume()
    async with asyncio.timeout(10):
        while process.has_open_output:
            heard.changed.clear()
            await heard.changed.wait()
    assert len(heard.output[STDOUT]) == 3_000_000
    await ended(forest, process, tree)


async def test_input_is_written_in_order_and_a_closed_end_is_no_error(forest: Forest, tmp_path: Path) -> None:
    process, tree, heard = await planted(forest, "cat | md5sum; exec 0<&-", tmp_path)
    for n in range(100):
        process.send(bytes([n]) * 10_000)
    process.close_input()
    process.send(b"too late")
    assert len(await heard.lines(1)) == 1
    await ended(forest, process, tree)


async def test_a_pid_that_is_in_use_again_is_never_signalled() -> None:
    me = procfs.read_process(os.getpid())
    assert me is not None
    procfs.send(me._replace(start=me.start - 1), procfs.signal.SIGKILL)


async def test_a_process_that_cannot_be_watched_is_ended_and_not_left(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.pidfd_open, 1

    def none_left(pid: int) -> int:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real(pid)

    monkeypatch.setattr(engine_process.os, "pidfd_open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        await planted(forest, f"echo $$ > {tmp_path}/pid; sleep 300", tmp_path)
    monkeypatch.undo()
    await forest.census()
    below = [each.pid for each in procfs.snapshot().values() if each.ppid == os.getpid() and procfs.variable(each.pid, MARK)]
    assert below == []


async def test_a_process_that_nobody_waits_for_any_more_while_it_starts_is_ended_and_not_left(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(what: Launch) -> subprocess.Popen[bytes]:
        begun.set()
        may_end.wait(10)
        launched.append(engine_process.launch(what))
        return launched[0]

    launched: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(process_tree, "launch", slow)
    planting = asyncio.create_task(planted(forest, "exec sleep 60", tmp_path))
    await asyncio.to_thread(begun.wait, 10)
    planting.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await planting
    assert launched[0].returncode is not None
    assert procfs.read_process(launched[0].pid) is None


async def test_a_process_that_cannot_be_looked_at_after_its_launch_is_ended_and_not_left(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_pid: int) -> procfs.Process:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(procfs, "read_process", none_left)
    cgroup = Cgroup(tmp_path / "cgroup", None)
    launch = Launch(("/bin/sleep", "300"), {MARK: OUR_MARK, RUN_MARK: "run.1"}, str(tmp_path), cgroup=cgroup)
    with pytest.raises(OSError, match="Too many open files"):
        await forest.plant(launch, Heard(), "run.1")
    monkeypatch.undo()
    below = [each.pid for each in procfs.snapshot().values() if each.ppid == os.getpid() and procfs.variable(each.pid, MARK)]
    assert (below, cgroup.path.exists()) == ([], False)


async def test_a_cgroup_that_was_half_made_is_not_left(forest: Forest, tmp_path: Path) -> None:
    class Half(Cgroup):
        def make(self) -> None:
            super().make()
            raise OSError(errno.EBUSY, "Device or resource busy")

    cgroup = Half(tmp_path / "cgroup", None)
    with pytest.raises(OSError, match="busy"):
        await forest.plant(Launch(("/bin/true",), {}, str(tmp_path), cgroup=cgroup), Heard(), "run.1")
    assert not cgroup.path.exists()


async def test_an_orphan_older_than_every_attempt_is_nobodys_and_ended(forest: Forest, tmp_path: Path) -> None:
    orphan = subprocess.Popen(["sleep", "300"], start_new_session=True)  # noqa: ASYNC220  no loop must reap it
    made = time.monotonic()
    await until(lambda: time.monotonic() - made > 3 / os.sysconf("SC_CLK_TCK"))  # the kernel's clock for starts is coarse
    process, tree, heard = await planted(forest, "sleep 300 & echo $!; wait", tmp_path)
    (younger,) = await heard.lines(1)
    found = procfs.snapshot()
    # only these: other children of this process are not the forest's business
    forest._place_orphans([tree], {pid: found[pid] for pid in (orphan.pid, process.pid, int(younger))})
    assert orphan.wait(10) == -9
    assert is_running(process.pid)
    assert is_running(int(younger))
    await ended(forest, process, tree)
