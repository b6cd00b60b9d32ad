"""What the kernel says about processes. Where it has no /proc, nothing: then nobody is stopped and nobody has children."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

KILL_ROUNDS = 100
KILL_ROUND_SECONDS = 0.005


def state_of(pid: int) -> str | None:
    """``T`` when stopped, ``Z`` when ended and not yet collected, else ``R``, ``S``, …; None when there is no such process."""
    found = _stat(Path("/proc") / str(pid))
    return None if found is None else found[0]


def is_stopped(pid: int) -> bool:
    return state_of(pid) in ("T", "t")


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all below it, the branches first: what loses its parent comes back below a subreaper."""
    for _ in range(KILL_ROUNDS):
        below = _below(pid)
        if not below:
            break
        for each in below:
            _kill(each)
        time.sleep(KILL_ROUND_SECONDS)
    _kill(pid)


def _below(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (found := _stat(entry)) is not None and found[0] != "Z":
            parents[int(entry.name)] = found[1]
    inside = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in inside} - inside
        inside |= more
        grown = bool(more)
    return sorted(inside - {root})


def _stat(entry: Path) -> tuple[str, int] | None:
    """State and parent; the name before them may hold anything, also parentheses."""
    try:
        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[1])
    except (OSError, IndexError, ValueError):
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
