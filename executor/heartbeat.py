"""The executor's sign of life, for its guard, written from the event loop, so that a loop that hangs falls silent; and its other
loops, which no single failure ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from executor import metrics
from executor.attempts.live_runs import LiveRuns
from executor.processes.process_tree import Forest
from executor.state_dir import StateDir
from shared.clock import monotonic_ms

BEAT_SECONDS = 0.25
BEATS_A_SECOND = 4
CENSUS_SECONDS = 1.0
BEATS_AN_HOUR = 3600 * BEATS_A_SECOND
AGAIN_SECONDS = 5.0

log = structlog.get_logger("heartbeat")


class Heartbeat:
    """``<clock ms> <earliest leash deadline in ms, 0 for none> <when it will have ended in ms, 0: it was not asked to>``, in
    place: a full disk cannot silence it."""

    def __init__(self, state: StateDir) -> None:
        self._fd = os.open(state.heartbeat, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def beat(self, leash_until_ms: int, leaves_by_ms: int) -> None:
        os.pwrite(self._fd, b"%-20d %-20d %-20d\n" % (monotonic_ms(), leash_until_ms, leaves_by_ms), 0)

    def close(self) -> None:
        os.close(self._fd)


async def keep_beating(heartbeat: Heartbeat, runs: LiveRuns) -> None:
    """Until cancelled: leashes four times a second, heartbeat once a second, old journals once an hour."""
    count = 0
    while True:
        _surely(runs.end_lapsed)
        if count % BEATS_A_SECOND == 0:
            _surely(lambda: heartbeat.beat(runs.earliest_leash_ms(), runs.leaves_by_ms))
            metrics.LIVE.set(len(runs.live()))
        if count % BEATS_AN_HOUR == 0:
            _surely(runs.release_old)
        count += 1
        await asyncio.sleep(BEAT_SECONDS)


async def keep_counting(forest: Forest) -> None:
    """Until cancelled: once a second, who belongs to which attempt."""
    while True:
        try:
            await forest.census()
        except Exception as error:
            log.error("census.failed", error=type(error).__name__, exc_info=error)
        await asyncio.sleep(CENSUS_SECONDS)


async def keep_at(task: str, work: Callable[[], Awaitable[None]]) -> None:
    """Until it is done, or cancelled. What breaks says so, and is begun anew after a while."""
    while True:
        try:
            return await work()
        except Exception as error:  # the outermost loop of a task
            log.error("task.failed", task=task, error=type(error).__name__, exc_info=error)
        await asyncio.sleep(AGAIN_SECONDS)


def _surely(act: Callable[[], object]) -> None:
    """One failing duty must not silence the others; the guard judges what is left undone."""
    try:
        act()
    except Exception as error:  # the outermost loop of the beat
        log.error("beat.failed", error=type(error).__name__, exc_info=error)
