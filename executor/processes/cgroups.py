"""A cgroup (v2) for each run, where this executor may make one: a bound on its memory, and all its processes in one list.

Standard library and files only. It never moves a process but this executor and its guard, and never divides the machine's root
cgroup. Where a bound that was asked for cannot be had, it says so, and every run says it again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = "runyard-"
SERVICES = f"{PREFIX}services"
MEMORY = "memory"
_ENTER = 'echo 0 > "$0/cgroup.procs" || exit 125; exec "$@"'


class Cgroup:
    """One run's. ``make`` it before the process starts, ``close`` it when nothing of the run is left."""

    def __init__(self, path: Path, memory_bytes: int | None) -> None:
        self.path = path
        self.memory_bytes = memory_bytes
        self.oom_kills = 0

    def make(self) -> None:
        """Raises ``OSError``."""
        self.path.mkdir(exist_ok=True)
        if self.memory_bytes is not None:
            (self.path / "memory.max").write_text(str(self.memory_bytes))
            _write_if_there(self.path / "memory.swap.max", "0")

    def entered(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The same program, which enters before its first instruction."""
        return ("/bin/sh", "-c", _ENTER, str(self.path), *argv)

    def pids(self) -> list[int]:
        """Everything alive in it, whatever session, group, parent or environment; [] when it is gone."""
        return [int(pid) for each in (self.path, *_below(self.path)) for pid in _read(each / "cgroup.procs").split()]

    def kill(self) -> None:
        """All at once, so that no fork gets away; nothing on a kernel older than that."""
        _write_if_there(self.path / "cgroup.kill", "1")

    def close(self) -> None:
        """Keep what it counted, and remove it. One that cannot be removed goes when the next executor starts."""
        self.oom_kills = max(self.oom_kills, _counted(_read(self.path / "memory.events"), "oom_kill"))
        _remove(self.path)


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where runs get theirs. ``root`` None: nowhere, for this ``reason``. ``memory_bytes``: the bound that holds for each."""

    root: Path | None
    reason: str = ""
    memory_bytes: int | None = None
    wanted_bytes: int | None = None
    mark: str = ""

    @property
    def facts(self) -> tuple[str, ...]:
        """What ``attempt.started`` says."""
        bound = () if self.wanted_bytes is None else ("memory-limit",) if self.memory_bytes is not None else ("no-memory-limit",)
        return (*(("cgroup",) if self.root is not None else ()), *bound)

    def of(self, run_mark: str) -> Cgroup | None:
        if self.root is None:
            return None
        name = hashlib.sha256(run_mark.encode()).hexdigest()[:24]
        return Cgroup(self.root / f"{PREFIX}{self.mark[:16]}-{name}", self.memory_bytes)

    def sweep(self) -> None:
        """End and remove what an earlier life of this executor left."""
        for left in self.root.glob(f"{PREFIX}{self.mark[:16]}-*") if self.root is not None else ():
            cgroup = Cgroup(left, None)
            cgroup.kill()
            cgroup.close()


def cgroups(given: Path | None, memory_bytes: int | None, mark: str, guard: int | None) -> Cgroups:
    """Looks for a cgroup to divide: the ``given`` one, else this process's own where it was delegated to it."""
    try:
        root = given if given is not None else _own()
        reason = _why_not(root) if root is not None else "this process is in no cgroup of version 2"
        if root is None or reason is not None:
            return Cgroups(None, reason or "", None, memory_bytes)
        can_bound = memory_bytes is not None and _divides_memory(root, {os.getpid(), *((guard,) if guard is not None else ())})
    except OSError as error:
        return Cgroups(None, f"{error.filename}: {error.strerror}", None, memory_bytes)
    reason = "" if can_bound or memory_bytes is None else f"{root} cannot bound memory"
    return Cgroups(root, reason, memory_bytes if can_bound else None, memory_bytes, mark)


def _own() -> Path | None:
    """The folder of this process's cgroup of version 2, as it is mounted here. Raises ``OSError``."""
    place = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::/")), None)
    for line in Path("/proc/self/mountinfo").read_text().splitlines() if place is not None else ():
        mount, _, kind = line.partition(" - ")
        root, point = mount.split()[3:5]
        if kind.startswith("cgroup2 ") and Path(place or "").is_relative_to(root):
            return Path(point) / Path(place or "").relative_to(root)
    return None


def _why_not(root: Path) -> str | None:
    """None when cgroups may be made below it and processes moved into them."""
    if not (root / "cgroup.procs").exists():
        return f"{root} is no cgroup of version 2"
    if not (root / "cgroup.events").exists():
        return f"{root} is the machine's root cgroup"
    if not all(os.access(path, os.W_OK) for path in (root, root / "cgroup.procs")):
        return f"{root} was not delegated to this user"
    return None


def _divides_memory(root: Path, ours: set[int]) -> bool:
    """Whether memory can be bounded below ``root``. Its own processes stand in the way: if they are all ours, they step aside."""
    if MEMORY not in _read(root / "cgroup.controllers").split():
        return False
    if MEMORY in _read(root / "cgroup.subtree_control").split():
        return True
    inside = {int(pid) for pid in _read(root / "cgroup.procs").split()}
    if inside - ours:
        return False
    try:
        if inside:
            aside = root / SERVICES
            aside.mkdir(exist_ok=True)
            for pid in inside:
                (aside / "cgroup.procs").write_text(str(pid))
        (root / "cgroup.subtree_control").write_text(f"+{MEMORY}")
    except OSError:
        return False
    return True


def _below(path: Path) -> list[Path]:
    """The deepest first. An engine of this user may make its own, as deep as it likes."""
    found: list[Path] = []
    waiting = [path]
    while waiting:
        folders = _folders_in(waiting.pop())
        found += folders
        waiting += folders
    return found[::-1]


def _folders_in(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove(path: Path) -> None:
    try:
        for each in (*_below(path), path):
            each.rmdir()
    except OSError:
        pass


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write_if_there(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # never makes one
    except OSError:
        return
    try:
        os.write(handle, text.encode())
    except OSError:
        pass
    finally:
        os.close(handle)


def _counted(events: str, name: str) -> int:
    return next((int(line.split()[1]) for line in events.splitlines() if line.split()[:1] == [name]), 0)
