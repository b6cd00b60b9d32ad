"""Gives an executor container its own place on the volume that all executors of a host share, then becomes the executor.

A place is a state directory with a lock beside it. The first free one is taken, so a container that replaces another goes on
with its journal, and any number of replicas needs no numbering. The lock is inherited by what comes after and held until
that has ended.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

MOST = 1000


def main() -> None:
    root = Path(os.environ.get("EXECUTOR_PLACES_DIR", "/var/lib/runyard"))
    place = take_place(root)
    if place is None:
        sys.exit(f"executor: all {MOST} places under {root} are taken")
    os.environ.setdefault("EXECUTOR_STATE_DIR", str(place))
    os.environ.setdefault("EXECUTOR_WORKSPACE_ROOT", str(root / "workspaces"))
    os.execv(sys.executable, [sys.executable, "-m", "executor"])


def take_place(root: Path) -> Path | None:
    """The first state directory nobody else holds, locked for the life of this process; None when there is none left."""
    for number in range(1, MOST + 1):
        place = root / f"executor-{number}"
        lock = os.open(place.with_suffix(".place"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)
        return place
    return None


if __name__ == "__main__":
    main()
