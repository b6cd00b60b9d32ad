"""Cgroup trees for tests: a real one where this machine lets us make it, and folders that only look like one."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def mounted() -> Path | None:
    """Where cgroups of version 2 can be made; None where they cannot."""
    return next((path for path in MOUNTS if (path / "cgroup.controllers").exists() and os.access(path, os.W_OK)), None)


@contextmanager
def real_cgroup() -> Generator[Path]:
    """An empty cgroup of the kernel's, removed afterwards."""
    mount = mounted()
    assert mount is not None
    path = mount / f"runyard-test-{token_hex(6)}"
    path.mkdir()
    try:
        yield path
    finally:
        for each in sorted(path.rglob("*"), reverse=True):
            if each.is_dir():
                each.rmdir()
        path.rmdir()


def looks_like_one(path: Path, controllers: str = "cpu memory", divided: str = "memory", inside: str = "") -> Path:
    """``divided``: the controllers its children have; ``inside``: the pids in it."""
    path.mkdir()
    given = {"controllers": controllers, "subtree_control": divided, "procs": inside, "events": "populated 0\n"}
    for name, text in given.items():
        (path / f"cgroup.{name}").write_text(text)
    return path


def below(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if each.is_dir()]
