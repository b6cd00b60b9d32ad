"""The two clocks. Records use the injected wall clock, durations the monotonic one; never mix them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
Monotonic = Callable[[], float]


def utc_now() -> datetime:
    return datetime.now(UTC)


monotonic: Monotonic = time.monotonic


def monotonic_ms() -> int:
    """Milliseconds of this machine's monotonic clock; meaningful only to the process group that reads it."""
    return int(time.monotonic() * 1000)
