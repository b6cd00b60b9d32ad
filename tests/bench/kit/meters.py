"""CPU and memory of processes, from the kernel. CPU is user and system time in seconds, to the nanosecond."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """What a process has used so far, its ended threads included, its children not."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's clock of another process, as clock_getcpuclockid(3) makes it


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _reaped(pid: int) -> float:
    """CPU of children that have ended and were waited for (in clock ticks: coarse)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS


def cpu_of_tree(pid: int) -> float:
    """Of a process and everything below it, the reaped included. A server with its backends."""
    total, todo = 0.0, [pid]
    while todo:
        each = todo.pop()
        try:
            total += cpu_of(each) + _reaped(each)
            todo += _children(each)
        except OSError:  # it has just ended: its parent's reaped time has it
            continue
    return total


class Stopwatch:
    """CPU of some processes since it was made, each under its name; ``trees`` count with all their children."""

    def __init__(self, processes: Iterable[tuple[str, int]], trees: Iterable[tuple[str, int]] = ()) -> None:
        self._read = [(name, pid, cpu_of) for name, pid in processes] + [(name, pid, cpu_of_tree) for name, pid in trees]
        self._before = [read(pid) for _, pid, read in self._read]
        self._began = time.perf_counter()

    def spent(self) -> dict[str, float]:
        """CPU seconds by name; the same name twice is added up."""
        found: dict[str, float] = {}
        for (name, pid, read), before in zip(self._read, self._before, strict=True):
            found[name] = found.get(name, 0.0) + read(pid) - before
        return found

    @property
    def elapsed(self) -> float:
        """Seconds of wall-clock time."""
        return time.perf_counter() - self._began


def pss_kib(pid: int) -> float:
    """Memory of a process with its share of what others use too."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))


def percentile(values: Iterable[float], per_cent: float) -> float:
    """0 for nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * per_cent / 100))] if ordered else 0.0
