"""The process trees of this executor: what belongs to which attempt, and how it is ended so that nothing is left.

A tree is the root and everything below it, its session, group and cgroup, everything that carries its mark, and the orphans that
came to us and can be nobody else's. It ends by TERM, a grace, KILL, and counts as gone only when two scans in a row find nothing.
Launches and scans share one thread: a scan costs milliseconds, and must never see a process that is not planted yet.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from executor.processes import procfs
from executor.processes.cgroups import Cgroup
from executor.processes.engine_process import EngineProcess, Launch, Listener, launch
from executor.processes.procfs import Process, Snapshot
from executor.state_dir import MARK, RUN_MARK

POLL_SECONDS = 0.01
SLOWEST_POLL_SECONDS = 0.1
SWEEP_SECONDS = 60.0
NEXT_TRY_SECONDS = 0.2
UNDO_SECONDS = 5.0
RESTS = 2  # times as long as a scan took
LONGEST_REST_SECONDS = 0.2
SETTLED_SECONDS = 5.0  # a process carries what it was started with from its exec on, which follows its start within that

log = structlog.get_logger("process_tree")

Key = tuple[int, int]  # pid, start ticks


@dataclass(slots=True, eq=False)
class Tree:
    """What one launch started. ``known``: members seen so far; a member stays one when its parents are gone."""

    root: Key
    run_mark: str
    workspace: str
    is_wrapped: bool
    cgroup: Cgroup | None = None
    known: set[Key] = field(default_factory=set[Key])


@dataclass(slots=True, eq=False)
class _Scan:
    """One look at /proc. Who asks before it has begun may share it; afterwards it is too old."""

    has_begun: bool = False
    result: asyncio.Task[Snapshot] | None = None


class TreeStaysError(Exception):
    """Something of a tree withstood SIGKILL for ``SWEEP_SECONDS``."""


class Forest:
    """All trees of this executor. ``close`` when no tree is left.

    Orphans are placed, and ended when nobody can own them, only where this process is a subreaper: then all its children are.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._me = os.getpid()
        self._adopts = procfs.is_subreaper()
        self._trees: set[Tree] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forest")
        self._latest: _Scan | None = None
        self._rested_at = 0.0
        self._strangers: set[Key] = set()  # nobody's mark is looked for in them again: most of a machine is none of our business

    @property
    def sandbox(self) -> str:
        """How a tree is contained; what ``attempt.started`` says."""
        return "session+subreaper" if self._adopts else "session"

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    async def plant(self, what: Launch, listener: Listener, run_mark: str) -> tuple[EngineProcess, Tree]:
        """Start a process at the root of a new tree; its environment carries ``run_mark`` and this executor's mark.

        Raises ``OSError``.
        """
        planting = asyncio.get_running_loop().run_in_executor(self._thread, self._plant, what, run_mark)
        try:
            popen, tree = await asyncio.shield(planting)
        except asyncio.CancelledError:  # whoever asked has gone; the process comes all the same
            with suppress(OSError):
                await self._uproot(*await planting)
            raise
        try:
            return EngineProcess(popen, listener, what.is_wrapped), tree
        except OSError:
            await self._uproot(popen, tree)
            raise

    async def _uproot(self, popen: subprocess.Popen[bytes], tree: Tree) -> None:
        """End what was planted and cannot be watched: nobody else knows of it."""
        _close_pipes(popen)
        popen.kill()
        await self.end_surely(tree, 0, asyncio.Event())
        popen.wait()
        self.forget(tree)

    def _plant(self, what: Launch, run_mark: str) -> tuple[subprocess.Popen[bytes], Tree]:
        popen: subprocess.Popen[bytes] | None = None
        try:
            if what.cgroup is not None:
                what.cgroup.make()
            popen = launch(what)
            process = procfs.read_process(popen.pid)  # nobody has reaped it, so it is there even when it has ended
        except OSError:
            _undo(popen, what.cgroup)
            raise
        root = (popen.pid, process.start if process else 0)
        tree = Tree(root, run_mark, what.cwd, what.is_wrapped, what.cgroup, {root})
        self._trees.add(tree)
        return popen, tree

    def forget(self, tree: Tree) -> None:
        """The tree is gone and its root reaped."""
        self._trees.discard(tree)
        if tree.cgroup is not None:
            tree.cgroup.close()

    async def census(self) -> None:
        """Note who belongs to whom while parents still live, and collect orphans that have ended. For a slow, steady beat."""
        if self._trees:
            await self._scanned()

    async def end(self, tree: Tree, grace_seconds: float, hurry: asyncio.Event) -> None:
        """TERM, at most ``grace_seconds`` (cut short by ``hurry``), KILL; returns when the tree is proven gone.

        Raises ``TreeStaysError`` when it cannot be ended, ``OSError`` when nobody can say whether it was. May be called again.
        """
        members = await self._members(tree)
        if members and grace_seconds > 0 and not hurry.is_set():
            for process in members:
                # A wrapper has no grace to give: it would take the engine with it at once. It ends when the engine has.
                if not (tree.is_wrapped and process.key == tree.root):
                    procfs.send(process, signal.SIGTERM)
            await _gone_within(members, grace_seconds, hurry)
        await self._kill_all(tree, empty_scans=0 if members else 1)

    async def end_surely(self, tree: Tree, grace_seconds: float, hurry: asyncio.Event) -> None:
        """``end``, again and again until it is true: an attempt whose tree may live is not over."""
        while True:
            try:
                return await self.end(tree, grace_seconds, hurry)
            except (TreeStaysError, OSError) as error:
                log.error("tree.stays", run=tree.run_mark, error=str(error) or type(error).__name__)
                await asyncio.sleep(NEXT_TRY_SECONDS)

    async def _kill_all(self, tree: Tree, empty_scans: int) -> None:
        """One empty scan may have raced with a fork; two in a row are the proof."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SWEEP_SECONDS
        pause = POLL_SECONDS
        while empty_scans < 2:
            members = await self._members(tree)
            empty_scans = 0 if members else empty_scans + 1
            if members and tree.cgroup is not None:
                tree.cgroup.kill()
            for process in members:
                procfs.send(process, signal.SIGKILL)
            if members:
                if loop.time() > deadline:
                    raise TreeStaysError
                await _gone_within(members, pause, None)
                pause = min(pause * 2, SLOWEST_POLL_SECONDS)

    async def _members(self, tree: Tree) -> list[Process]:
        processes = await self._scanned()
        return [each for pid, start in list(tree.known) if (each := processes.get(pid)) and each.start == start]

    async def _scanned(self) -> Snapshot:
        """The living, as a scan found them that began after this call; callers that come while one waits share it."""
        if self._latest is None or self._latest.has_begun:
            last, self._latest = self._latest, _Scan()
            self._latest.result = asyncio.create_task(self._look(self._latest, last))
        assert self._latest.result is not None
        return await asyncio.shield(self._latest.result)

    async def _look(self, scan: _Scan, last: _Scan | None) -> Snapshot:
        """After the last one and a rest: an executor that ends many attempts at once has more to do than to look around."""
        if last is not None and last.result is not None:
            await asyncio.wait((last.result,))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._rested_at - loop.time()))
        began = loop.time()
        try:
            return await loop.run_in_executor(self._thread, self._scan, scan)
        finally:
            ended = loop.time()
            self._rested_at = ended + min(RESTS * (ended - began), LONGEST_REST_SECONDS)

    # ---- in the thread ----

    def _scan(self, scan: _Scan) -> Snapshot:
        """Everyone alive; every tree's ``known`` is brought up to date on the way."""
        scan.has_begun = True
        trees = list(self._trees)
        processes = procfs.snapshot()
        children = procfs.children_by_parent(processes)
        for tree in trees:
            known = {key for key in tree.known if (each := processes.get(key[0])) and each.start == key[1]}
            inside = tree.cgroup.pids() if tree.cgroup is not None else ()
            tree.known = known | {tree.root} | {processes[pid].key for pid in inside if pid in processes}
            _add_descendants(tree, processes, children)
        self._add_marked(trees, processes)
        if self._adopts:
            self._place_orphans(trees, processes)
        for tree in trees:
            _add_descendants(tree, processes, children)
        return {pid: process for pid, process in processes.items() if process.is_alive}

    def _add_marked(self, trees: list[Tree], processes: Snapshot) -> None:
        owned = {key for tree in trees for key in tree.known}
        self._strangers &= {process.key for process in processes.values()}
        oldest = min((tree.root[1] for tree in trees), default=0)
        settled = procfs.ticks_ago(SETTLED_SECONDS)
        by_root = {tree.root[0]: tree for tree in trees}
        by_mark = {tree.run_mark: tree for tree in trees}
        for process in processes.values():
            if process.key in owned or process.start < oldest or process.pid == self._me or not process.is_alive:
                continue
            tree = by_root.get(process.session) or by_root.get(process.pgrp)
            if tree is None and process.key not in self._strangers:
                if procfs.variable(process.pid, MARK) == self._mark:  # another executor may know the same run
                    tree = by_mark.get(procfs.variable(process.pid, RUN_MARK) or "")
                elif process.start < settled:
                    self._strangers.add(process.key)
            if tree is not None:
                tree.known.add(process.key)

    def _place_orphans(self, trees: list[Tree], processes: Snapshot) -> None:
        owned = {key for tree in trees for key in tree.known}
        roots = {tree.root for tree in trees}
        for orphan in processes.values():
            if orphan.ppid != self._me or orphan.key in roots:
                continue
            if not orphan.is_alive:
                procfs.reap(orphan.pid)
                continue
            if orphan.key in owned:
                continue
            owners = _possible_owners(orphan, trees)
            if not owners:  # its attempt is over
                procfs.send(orphan, signal.SIGKILL)
            elif len(owners) == 1:
                owners[0].known.add(orphan.key)


def _undo(popen: subprocess.Popen[bytes] | None, cgroup: Cgroup | None) -> None:
    """A launch that came to no tree: nobody would ever end what it started. What a child of a moment shed of its mark, session
    and cgroup comes to us as an orphan."""
    if popen is not None:
        _close_pipes(popen)
        try:
            os.killpg(popen.pid, signal.SIGKILL)  # it leads a session, and is unreaped
        except ProcessLookupError:
            pass
        if cgroup is not None:
            cgroup.kill()
        try:
            popen.wait(UNDO_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("tree.stays", pid=popen.pid, error="a process that was never watched withstands SIGKILL")
    if cgroup is not None:
        cgroup.close()


def _close_pipes(popen: subprocess.Popen[bytes]) -> None:
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()


def _possible_owners(orphan: Process, trees: list[Tree]) -> list[Tree]:
    """For an orphan without mark, session or known parent: the trees that can have started it; of those, the ones whose
    workspace it stands in. As long as several remain it is left alone, and goes with the last of them."""
    possible = [tree for tree in trees if tree.root[1] <= orphan.start]
    try:
        place = os.readlink(f"/proc/{orphan.pid}/cwd") + "/"
    except OSError:
        return possible
    return [tree for tree in possible if place.startswith(f"{tree.workspace}/")] or possible


def _add_descendants(tree: Tree, processes: Snapshot, children: Mapping[int, Sequence[int]]) -> None:
    for pid in procfs.below(children, {pid for pid, _start in tree.known}):
        tree.known.add(processes[pid].key)


async def _gone_within(members: list[Process], seconds: float, hurry: asyncio.Event | None) -> None:
    """Until none of them lives, or the time is over, or ``hurry`` is set."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + seconds, POLL_SECONDS / 2
    while any(_is_alive(process) for process in members):
        left = deadline - loop.time()
        if left <= 0 or (hurry is not None and hurry.is_set()):
            return
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, SLOWEST_POLL_SECONDS)


def _is_alive(process: Process) -> bool:
    now = procfs.read_process(process.pid)
    return now is not None and now.start == process.start and now.is_alive
