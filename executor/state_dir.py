"""Where an executor keeps what must outlive it, and the names it marks its processes with.

Standard library only: the guard reads this. Two processes share the directory: the guard writes the lock, the pid and what
it has seen, the executor everything else.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

MARK = "RUNYARD_EXECUTOR_MARK"  # in the environment of every process of one executor: which state directory it belongs to
RUN_MARK = "RUNYARD_RUN"  # in the environment of an engine: <runId>.<attempt>
INSTANCE = "RUNYARD_EXECUTOR_INSTANCE"  # from the guard to the executor: this life's id
GUARD_PID = "RUNYARD_EXECUTOR_GUARD"  # from the guard to the executor: who must be its parent
STATE_DIR = "EXECUTOR_STATE_DIR"


def default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "runyard" / "executor"


@dataclass(frozen=True, slots=True)
class StateDir:
    """The files of one executor. ``root`` is absolute and resolved; made 0700 by ``make``."""

    root: Path

    @classmethod
    def at(cls, path: str | Path | None) -> StateDir:
        return cls(Path(path or default_state_dir()).resolve())

    def make(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def mark(self) -> str:
        """What tells this executor's processes from all others on the machine; the same in every life."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:32]

    @property
    def lock(self) -> Path:
        return self.root / "guard.lock"

    @property
    def pid(self) -> Path:
        return self.root / "executor.pid"

    @property
    def heartbeat(self) -> Path:
        return self.root / "heartbeat"

    @property
    def seen(self) -> Path:
        """The processes the guard last saw below it: what a later guard ends although they shed their mark."""
        return self.root / "seen"

    @property
    def executor_id(self) -> Path:
        return self.root / "executor-id"

    @property
    def snapshots(self) -> Path:
        """Snapshots on their way to the store; emptied at each start."""
        return self.root / "snapshots"

    @property
    def journal(self) -> Path:
        return self.root / "journal"


def write_whole(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old or the new text, never a part. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
