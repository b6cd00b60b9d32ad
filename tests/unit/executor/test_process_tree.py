"""Trees of real processes, without an executor around them."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from executor.adapters.base import STDERR, STDOUT, Stream
from executor.processes import engine_process, process_tree, procfs
from executor.processes.cgroups import Cgroup
from executor.processes.engine_process import EngineProcess, Launch
from executor.processes.process_tree import Forest, Tree
from executor.state_dir import MARK, RUN_MARK


class Heard:
    def __init__(self) -> None:
        self.output: dict[str, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
        self.changed = asyncio.Event()

    def on_bytes(self, stream: Stream, chunk: bytes) -> None:
        self.output[stream] += chunk
        self.changed.set()

    def on_change(self) -> None:
        self.changed.set()

    async def lines(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while self.output[STDOUT].count(b"\n") < count:
                self.changed.clear()
                await self.changed.wait()
        return self.output[STDOUT].decode().splitlines()


@pytest.fixture
async def forest() -> AsyncIterator[Forest]:
    forest = Forest("mark")
    yield forest
    forest.close()


async def planted(forest: Forest, script: str, tmp_path: Path, mark: str = "run.1") -> tuple[EngineProcess, Tree, Heard]:
    heard = Heard()
    env = {"PATH": os.environ["PATH"], MARK: "mark", RUN_MARK: mark}
    process, tree = await forest.plant(Launch(("/bin/sh", "-c", script), env, str(tmp_path)), heard, mark)
    return process, tree, heard


async def ended(forest: Forest, process: EngineProcess, tree: Tree, grace: float = 5) -> float:
    """Seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        await forest.end(tree, grace, asyncio.Event())
    took = time.monotonic() - began
    process.close()
    forest.forget(tree)
    return took


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


def lives(pid: str) -> bool:
    process = procfs.read_process(int(pid))
    return process is not None and process.is_alive


def session_nice(pid: str) -> str | None:
    """Of the session of a process, where the machine is shared by session."""
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().split()[-1]
    except (OSError, IndexError):
        return None


async def test_a_tree_that_obeys_is_gone_soon(forest: Forest, tmp_path: Path) -> None:
    took: list[float] = []
    for _ in range(5):
        process, tree, heard = await planted(forest, "sleep 300 & echo $!; wait", tmp_path)
        (child,) = await heard.lines(1)
        took.append(await ended(forest, process, tree))
        assert not lives(child)
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
    assert not lives(child)
    assert not lives(str(process.pid))


async def test_a_child_is_remembered_when_its_parents_are_gone(forest: Forest, tmp_path: Path) -> None:
    process, tree, heard = await planted(forest, "env -i setsid sh -c 'sleep 300 & echo $!; read x' ; sleep 300", tmp_path)
    (child,) = await heard.lines(1)
    await forest.census()
    before = procfs.read_process(int(child))
    assert before is not None
    process.send(b"go\n")  # its parent ends: no mark, no session, no parent leads to it any more
    await until(lambda: (now := procfs.read_process(int(child))) is None or now.ppid != before.ppid)
    await ended(forest, process, tree)
    assert not lives(child)


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
    assert of_the_session in (str(min(own + 10, 19)), None)


async def test_two_trees_do_not_touch_each_other(forest: Forest, tmp_path: Path) -> None:
    one, first, _ = await planted(forest, "sleep 300", tmp_path / ".", "run.1")
    two, second, _ = await planted(forest, "setsid sleep 300 & sleep 300", tmp_path, "run.2")
    await ended(forest, one, first)
    assert lives(str(two.pid))
    await ended(forest, two, second)


async def test_another_executor_that_knows_the_same_run_is_left_alone(forest: Forest, tmp_path: Path) -> None:
    another = Forest("another")
    ours, tree, _ = await planted(forest, "sleep 300", tmp_path)
    env = {"PATH": os.environ["PATH"], MARK: "another", RUN_MARK: "run.1"}
    theirs, their_tree = await another.plant(Launch(("/bin/sleep", "300"), env, str(tmp_path)), Heard(), "run.1")
    await ended(forest, ours, tree)
    assert lives(str(theirs.pid))
    await ended(another, theirs, their_tree)
    another.close()


async def test_a_process_that_takes_its_mark_on_after_it_was_seen_without_belongs_to_its_run(
    forest: Forest, tmp_path: Path
) -> None:
    process, tree, _ = await planted(forest, "sleep 300", tmp_path)
    late = subprocess.Popen(  # noqa: ASYNC220  no loop must reap it
        ["env", "-i", "sh", "-c", f"read x; exec env {MARK}=mark {RUN_MARK}=run.1 sleep 300"],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    await forest.census()
    assert late.pid not in {pid for pid, _start in tree.known}
    assert late.stdin is not None
    late.stdin.close()
    await until(lambda: procfs.variable(late.pid, RUN_MARK) == "run.1")
    await ended(forest, process, tree)
    assert not lives(str(late.pid))
    late.wait()


async def test_a_settled_stranger_is_searched_for_a_mark_once(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    variable = procfs.variable
    monkeypatch.setattr(procfs, "variable", lambda pid, name: (searched.append(pid), variable(pid, name))[1])
    monkeypatch.setattr(process_tree, "SETTLED_SECONDS", -1.0)
    process, tree, _ = await planted(forest, "sleep 300", tmp_path)
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True, env={})  # noqa: ASYNC220  no loop must reap it
    for _ in range(3):
        await forest.census()
    stranger.kill()
    stranger.wait()
    await ended(forest, process, tree)
    assert searched.count(stranger.pid) == 1


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
    launch = Launch(("/bin/sleep", "300"), {MARK: "mark", RUN_MARK: "run.1"}, str(tmp_path), cgroup=cgroup)
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


@pytest.mark.parametrize("function", [procfs.read_process, lambda pid: procfs.variable(pid, "PATH")])
def test_a_process_that_cannot_be_looked_at_is_not_taken_for_gone(
    function: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_given: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", none_left)
    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        function(os.getpid())


async def test_one_look_that_finds_nothing_proves_nothing(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, tree, _heard = await planted(forest, "sleep 300", tmp_path)
    look, misses = forest._members, 1  # it raced with a fork

    async def members(asked: Tree) -> list[procfs.Process]:
        nonlocal misses
        misses -= 1
        return [] if misses >= 0 else await look(asked)

    monkeypatch.setattr(forest, "_members", members)
    await ended(forest, process, tree)
    assert not lives(str(process.pid))
    assert process.exit_code == -9


async def test_a_look_that_began_before_the_question_is_no_answer_to_it(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> None:
    real, began, may_end = procfs.snapshot, threading.Event(), threading.Event()
    looks: list[int] = []

    def snapshot() -> dict[int, procfs.Process]:
        looks.append(len(looks))
        began.set()
        may_end.wait(10)
        return real()

    monkeypatch.setattr(procfs, "snapshot", snapshot)
    first = asyncio.create_task(forest._scanned())
    await until(began.is_set)
    later = [asyncio.create_task(forest._scanned()) for _ in range(3)]
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(first, *later)
    assert len(looks) == 2, "one for the first, one for all who came while it ran"


async def test_however_many_ask_scans_take_a_part_of_the_time_only(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that ended ten attempts a second once spent more time on /proc than on all its events."""
    real = procfs.snapshot
    spans: list[tuple[float, float]] = []

    def snapshot() -> dict[int, procfs.Process]:
        began = time.monotonic()
        found = real()
        time.sleep(0.02)  # a machine with many processes
        spans.append((began, time.monotonic()))
        return found

    monkeypatch.setattr(procfs, "snapshot", snapshot)
    for _ in range(4):
        await asyncio.gather(*(forest._scanned() for _ in range(5)))
    rests = [after[0] - before[1] for before, after in pairwise(spans)]
    assert len(spans) == 4
    assert all(rest >= (end - begin) for rest, (begin, end) in zip(rests, spans, strict=False))


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
    assert lives(str(process.pid))
    assert lives(younger)
    await ended(forest, process, tree)


async def test_a_look_sorts_the_machines_processes_once_however_many_trees_there_are(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a tree made a scan of five hundred trees a hundred times as dear, and launches wait behind scans."""
    grown = [await planted(forest, "sleep 60 & echo up; wait", tmp_path, f"run_{number}.1") for number in range(3)]
    for _, _, heard in grown:
        await heard.lines(1)
    sorted_once, real = list[int](), procfs.children_by_parent
    monkeypatch.setattr(procfs, "children_by_parent", lambda processes: (sorted_once.append(1), real(processes))[1])
    await forest.census()
    assert len(sorted_once) == 1
    assert [len(tree.known) for _, tree, _ in grown] == [2, 2, 2]
    monkeypatch.undo()
    for process, tree, _ in grown:
        await ended(forest, process, tree, grace=0)
