"""Looking at real processes from a test: who lives, who is below whom, and waiting until something is so. Not a test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from runyard.local_stack.processes import state_of

BOUND_SECONDS = 60


def until(condition: Callable[[], object], bound_seconds: float = BOUND_SECONDS) -> None:
    deadline = time.monotonic() + bound_seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    return state_of(pid) not in (None, "Z")


def below(pid: int) -> set[int]:
    """Every living process under ``pid``."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed)}
    inside = {pid}
    while more := {child for child, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return {each for each in inside - {pid} if lives(each)}
