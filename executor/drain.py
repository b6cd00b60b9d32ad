"""An executor that is asked to end: nothing new is taken, and it goes when what it has has ended and was told.

A run that waits for a person may wait for days: its attempt is ended as lost, the run is parked, and the reply starts the next
one. Starts nothing and judges no attempt; how what is left is ended is ``LiveRuns``' own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

import structlog

from executor.attempts.live_runs import LiveRuns
from shared.clock import monotonic, monotonic_ms

LOOK_SECONDS = 0.1
ANSWER_SECONDS = 5.0  # some questions are answered by a program, and some people are just about to
READ_SECONDS = 20.0  # a driver that was restarted, too, takes its runs up again by then
RELEASE_SECONDS = 2.0  # who has read an attempt's end writes it before it lets go of the attempt

log = structlog.get_logger("drain")


class Left(Enum):
    """What there is still to wait for, the most important first."""

    WORK = auto()
    QUESTIONS = auto()
    UNREAD = auto()
    UNRELEASED = auto()
    NOTHING = auto()


PATIENCE = {
    Left.WORK: float("inf"), Left.QUESTIONS: ANSWER_SECONDS, Left.UNREAD: READ_SECONDS, Left.UNRELEASED: RELEASE_SECONDS,
    Left.NOTHING: 0.0,
}  # fmt: skip


class Drain:
    """``begin`` it once; ``end`` is called when it is over. ``bound_seconds`` 0: there is nothing to begin."""

    def __init__(self, runs: LiveRuns, bound_seconds: float, end: Callable[[], None]) -> None:
        self._runs = runs
        self._end = end
        self._task: asyncio.Task[None] | None = None
        self.bound_seconds = bound_seconds

    def begin(self) -> None:
        """On the event loop. Once is enough."""
        if self._task is None:
            self._runs.leave(monotonic_ms() + int(self.bound_seconds * 1000))
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        log.info("drain.began", live=len(self._runs.live()), bound_seconds=self.bound_seconds)
        try:
            async with asyncio.timeout(self.bound_seconds):
                await self._while_worth_it((Left.WORK, Left.QUESTIONS))
                await asyncio.shield(self._runs.end_all())
                await self._while_worth_it((Left.UNREAD, Left.UNRELEASED))
        except TimeoutError:
            log.warning("drain.bound_passed", live=len(self._runs.live()))
        self._end()

    async def _while_worth_it(self, of: tuple[Left, ...]) -> None:
        """Until what is left is none of these, or has been the same for longer than that is waited for."""
        seen, since = Left.NOTHING, monotonic()
        while (left := what_is_left(self._runs)) in of:
            if left is not seen:
                seen, since = left, monotonic()
            elif monotonic() - since >= PATIENCE[left]:
                return
            await asyncio.sleep(LOOK_SECONDS)


def what_is_left(runs: LiveRuns) -> Left:
    """Of the attempts of this life; what earlier ones left is told to whoever asks the next one."""
    left = Left.NOTHING
    for attempt in runs.all():
        if attempt.runner is None:
            continue
        if attempt.is_live:
            its = Left.QUESTIONS if attempt.runner.questions.open else Left.WORK
        else:
            its = Left.UNRELEASED if attempt.tail.was_read else Left.UNREAD
        left = min(left, its, key=lambda each: each.value)
    return left
