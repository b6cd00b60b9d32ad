"""How an executor looks around among all processes of its machine."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from executor.processes import process_tree, procfs
from executor.processes.process_tree import Forest, Tree
from executor.state_dir import MARK, RUN_MARK
from tests.service.executor.kit import is_running, until
from tests.unit.executor.trees import OUR_MARK, ended, planted


async def test_a_process_that_takes_its_mark_on_after_it_was_seen_without_belongs_to_its_run(
    forest: Forest, tmp_path: Path
) -> None:
    process, tree, _ = await planted(forest, "sleep 300", tmp_path)
    late = subprocess.Popen(  # noqa: ASYNC220  no loop must reap it
        ["env", "-i", "sh", "-c", f"read x; exec env {MARK}={OUR_MARK} {RUN_MARK}=run.1 sleep 300"],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    await forest.census()
    assert late.pid not in {pid for pid, _start in tree.known}
    assert late.stdin is not None
    late.stdin.close()
    await until(lambda: procfs.variable(late.pid, RUN_MARK) == "run.1")
    await ended(forest, process, tree)
    assert not is_running(late.pid)
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
    assert not is_running(process.pid)
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
    due = [min(end - begin, process_tree.LONGEST_REST_SECONDS) for begin, end in spans[:-1]]
    assert all(rest >= least for rest, least in zip(rests, due, strict=True))


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
