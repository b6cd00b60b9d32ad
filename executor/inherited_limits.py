"""Kernel limits an executor sets on itself first of all, so that every engine has them from its first instruction."""

from __future__ import annotations

import resource
from pathlib import Path

# When memory runs out, engines go before the services and their database.
OOM_SCORE = 300


def take_limits(file_bytes: int) -> None:
    """No core dumps (they hold credentials), no file larger than ``file_bytes``, and nobody below may raise them again.

    A kernel that refuses leaves the limit as it was: a lower one stands already.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    try:
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(OOM_SCORE, int(score.read_text()))))
    except (OSError, ValueError):
        pass  # a kernel without it chooses by size alone


def _lower(which: int, most: int) -> None:
    _soft, hard = resource.getrlimit(which)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (limit, limit))
