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
    """Milliseconds of the clock that goes on while the machine is suspended, as leashes need; meaningful on this machine only."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
