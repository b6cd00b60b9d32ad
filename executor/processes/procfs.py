"""Processes as /proc shows them, and the two kernel requests an executor needs. Standard library only: the guard imports this.

A process is named by pid *and* start time, so that a pid used again is never taken for the one that had it before.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_STAT_BYTES = 4096
_LISTENS = "0A"  # a socket's state in /proc/net/tcp
# What a process that is gone, or none of our business, is answered with. Anything else says nothing about it: who takes it for
# gone then calls a living tree dead.
_NOT_THERE = (FileNotFoundError, ProcessLookupError, PermissionError)


class Process(NamedTuple):
    """One line of /proc/<pid>/stat. ``start``: clock ticks since boot."""

    pid: int
    ppid: int
    pgrp: int
    session: int
    start: int
    is_alive: bool

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start


Snapshot = Mapping[int, Process]


def read_process(pid: int) -> Process | None:
    """None when there is no such process (any more). Raises ``OSError`` when nobody can say."""
    try:
        line = _read(f"/proc/{pid}/stat", _STAT_BYTES)
    except _NOT_THERE:
        return None
    # the name, in parentheses, may itself hold spaces and parentheses
    fields = line[line.rfind(b")") + 2 :].split()
    # a leader that ended before its threads looks like a zombie and is none
    is_alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), is_alive)


def _read(path: str, size: int) -> bytes:
    """At most ``size`` bytes in one read: a file object costs twice as much, and a scan opens one for every process."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, size)
    finally:
        os.close(file)


def snapshot() -> dict[int, Process]:
    """All processes, zombies included. Costs some 20 µs a process: never on the hot path. Raises ``OSError``."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := read_process(int(name))) is not None:
            found[process.pid] = process
    return found


def ticks_ago(seconds: float) -> int:
    """The time so long ago, in the ticks of ``Process.start``."""
    return int((time.clock_gettime(time.CLOCK_BOOTTIME) - seconds) * os.sysconf("SC_CLK_TCK"))


def variable(pid: int, name: str) -> str | None:
    """The value a process was started with; None without one, and for what we may not read. Raises ``OSError``."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            variables = environ.read().split(b"\0")
    except _NOT_THERE:
        return None
    prefix = f"{name}=".encode()
    return next((each[len(prefix) :].decode(errors="replace") for each in variables if each.startswith(prefix)), None)


def server_port(root: int, input_link: str) -> int | None:
    """The TCP port on which an engine listens: of ``root`` or below it, the process whose input that is (``pipe:[4711]``).

    What the engine started has another input, so no server of a tool is taken for it. Of several ports the one opened first. None
    without one, and for what we may not read. Raises ``OSError``.
    """
    for pid in (root, *sorted(descendants(snapshot(), (root,)))):
        if _link(f"/proc/{pid}/fd/0") == input_link and (port := _listening_port(pid)) is not None:
            return port
    return None


def _listening_port(pid: int) -> int | None:
    try:
        handles = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        tables = [_listeners(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    except _NOT_THERE:
        return None
    ports = {f"socket:[{inode}]": port for table in tables for inode, port in table}
    return next((ports[link] for each in handles if (link := _link(f"/proc/{pid}/fd/{each}")) in ports), None)


def _listeners(path: str) -> list[tuple[int, int]]:
    """Inode and port of every listening socket in a table like /proc/net/tcp."""
    with open(path) as table:
        rows = [line.split() for line in table][1:]
    return [(int(row[9]), int(row[1].rpartition(":")[2], 16)) for row in rows if row[3] == _LISTENS]


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except _NOT_THERE:
        return None


def children_by_parent(processes: Snapshot) -> Mapping[int, Sequence[int]]:
    """Who started whom, for ``below``: made once of a snapshot, however many trees are looked for in it."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    return children


def below(children: Mapping[int, Sequence[int]], roots: Iterable[int]) -> set[int]:
    """Everything below ``roots``; a root itself only where it stands below another one."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def descendants(processes: Snapshot, roots: Iterable[int]) -> set[int]:
    """``below`` for one look."""
    return below(children_by_parent(processes), roots)


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly this process; nothing happens when it is gone, even if its pid is in use again. Raises ``OSError``."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = read_process(process.pid)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(handle)


def reap(pid: int) -> None:
    """Collect one ended child; nothing happens when it lives or is not ours."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def become_subreaper() -> None:
    """From now on orphans below this process become its children, not init's. Raises ``OSError``."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def is_subreaper() -> bool:
    """Whether orphans below this process come to it. Raises ``OSError``."""
    answer = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return answer.value == 1


def signal_when_parent_dies(number: signal.Signals, parent: int) -> None:
    """Ask for a signal when the parent is gone; it comes at once when it already is. Raises ``OSError``."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        signal.raise_signal(number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
