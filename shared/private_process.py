"""A process nobody reads but root: what it was started with, its memory and its open files. Standard library only.

Engines run as the executor's own user where no sandbox holds them, and ``/proc/<pid>/environ`` of a service holds its secrets.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def become_private() -> None:
    """From now on ``/proc/<pid>`` of this process is root's, and no other process of its user may trace it or dump its memory.

    What it starts is not private: another program is read as before. Raises ``OSError``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0) for _ in range(4))) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
