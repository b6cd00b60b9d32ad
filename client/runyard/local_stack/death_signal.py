"""A child that does not outlive its parent, where the kernel can promise it (Linux); elsewhere these do nothing.

The kernel's parent is the *thread* that started the child: start children from the main thread only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Loaded here: a child between fork and exec should not.
_LIBC: ctypes.CDLL | None = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def dies_with_parent(sig: signal.Signals) -> Callable[[], None]:
    """For ``Popen(preexec_fn=…)``: the child gets ``sig`` when the thread that starts it ends. Survives a change of user."""
    parent = os.getpid()

    def in_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(sig))
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

    return in_child


def die_with_parent(sig: signal.Signals) -> None:
    """The same for this very process; call it first thing in ``main``."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(sig))
