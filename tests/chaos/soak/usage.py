"""What the processes of a stack use: memory, descriptors, threads, processor time, from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.kit.meters import cpu_of, cpu_of_tree
from tests.chaos.rolling import parent
from tests.e2e.kit import Stack

MIB_IN_KIB = 1024
_EXECUTOR = re.compile(r"executor-\d+")


@dataclass(frozen=True, slots=True)
class Use:
    """Of one service at one moment. MiB; ``processes`` with the children, ``cpu`` in seconds since it began.

    Of Postgres ``rss`` is that of its first process, the rest of the whole tree: its backends share their buffers.
    """

    rss: float
    pss: float
    uss: float
    descriptors: int
    threads: int
    processes: int
    cpu: float


def service_pids(stack: Stack) -> dict[str, int]:
    """By name; an executor's guard stands beside it."""
    found: dict[str, int] = {}
    for service in stack.facts["services"]:
        found[service["name"]] = service["pid"]
        if _EXECUTOR.fullmatch(service["name"]):
            found[f"{service['name']}'s guard"] = parent(service["pid"])
    return found


def looked_at(pids: Mapping[str, int]) -> dict[str, Use]:
    """All services; one that has just ended is left out."""
    found: dict[str, Use] = {}
    for name, pid in pids.items():
        try:
            found[name] = _of_tree(pid) if name == "postgres" else _of_one(pid)
        except OSError:
            continue
    return found


def _of_one(pid: int) -> Use:
    memory = memory_of(pid)
    return Use(
        memory["Rss"], memory["Pss"], _private(memory), _descriptors(pid), _threads(pid), 1 + len(children_of(pid)), cpu_of(pid)
    )


def _of_tree(pid: int) -> Use:
    members = [pid, *children_of(pid)]
    memories = [memory for each in members if (memory := _maybe(each)) is not None]
    return Use(
        memory_of(pid)["Rss"],
        sum(each["Pss"] for each in memories),
        sum(_private(each) for each in memories),
        _descriptors(pid),
        _threads(pid),
        len(members),
        cpu_of_tree(pid),
    )


def _maybe(pid: int) -> Mapping[str, float] | None:
    try:
        return memory_of(pid)
    except OSError:
        return None


def memory_of(pid: int) -> Mapping[str, float]:
    """MiB by the names of ``smaps_rollup``. Raises ``OSError``."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {name.rstrip(":"): int(kib) / MIB_IN_KIB for name, kib, *_ in lines}


def _private(memory: Mapping[str, float]) -> float:
    return memory["Private_Clean"] + memory["Private_Dirty"]


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def children_of(pid: int) -> list[int]:
    """Those of all its threads, living or not waited for; none of a process that has ended."""
    try:
        return [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()]
    except OSError:
        return []


def together(processes: Iterable[int]) -> dict[str, float]:
    """MiB of many processes: ``rss``, ``pss``, ``uss`` added up; what ended meanwhile is left out."""
    memories = [memory for each in processes if (memory := _maybe(each)) is not None]
    return {
        "count": len(memories),
        "rss": sum(each["Rss"] for each in memories),
        "pss": sum(each["Pss"] for each in memories),
        "uss": sum(_private(each) for each in memories),
    }
