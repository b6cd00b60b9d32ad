"""Which workspaces this executor works in, told to others that share its root: one lock each, on one byte of one file.

The kernel takes a lock back when its process is gone, however it went. A process never locks itself out: who works in a workspace
within this executor is for ``LiveRuns`` to know.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Container
from pathlib import Path

import structlog

_FOLDER = ".held"  # beside the workspaces, as all that is ours there

log = structlog.get_logger("shared_workspaces")


class SharedWorkspaces:
    """The file is open only while something is held. Never raises: without locks an executor still guards its own."""

    def __init__(self, root: Path) -> None:
        self._path = root / _FOLDER / "locks"
        self._fd = -1
        self._held: set[str] = set()

    def take(self, key: str) -> bool:
        """Whether no other executor works there, as far as this file system can tell; until ``keep_only`` gives it back."""
        if key in self._held:
            return True
        try:
            if self._fd < 0:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            is_free = _lock(self._fd, key)
        except OSError as error:
            log.warning("workspace.not_lockable", reason=error.strerror)
            return True
        if is_free:
            self._held.add(key)
        return is_free

    def keep_only(self, keys: Container[str]) -> None:
        """Give all others back."""
        for key in [each for each in self._held if each not in keys]:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _byte(key))
            self._held.discard(key)
        if not self._held and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int, key: str) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(key))
    except (BlockingIOError, PermissionError):  # the two ways to say that somebody else has it
        return False
    return True


def _byte(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
