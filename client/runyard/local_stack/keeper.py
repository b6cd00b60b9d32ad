"""Keeping one process running: start it, wait until it can do its job, notice that it died or hangs, start it again.

One body for services and for Postgres; they differ in what a ``Kept`` does. A keeper never gives up once its process has
been up: a stack on a person's machine should outlast whatever is done to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from runyard.local_stack.processes import is_stopped
from runyard.local_stack.stack import StackError

TICK_SECONDS = 0.1
PROBE_EVERY_SECONDS = 1.0
STOPPED_SECONDS = 3.0
SILENT_SECONDS = 15.0
START_SECONDS = 60.0
STARTS_BEFORE_GIVING_UP = 3
ENDING_SECONDS = 6.0  # what a killed stack leaves behind may hold a lock or a port for that long
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
MAX_DOUBLINGS = 16  # far beyond the longest delay; without a limit the power would one day be no number
HEALTHY_AFTER_SECONDS = 10.0

Say = Callable[[str], None]


class Kept(Protocol):
    """A process as its keeper sees it. None of these may block for long: all keepers share one thread."""

    name: str

    @property
    def pid(self) -> int | None: ...
    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        ...

    def launch(self) -> None:
        """Raises ``StackError`` or ``OSError`` when there is nothing to launch."""
        ...

    def kill(self) -> None: ...
    def last_words(self) -> str: ...
    async def is_ready(self) -> bool: ...
    async def answers(self) -> bool:
        """Whether it gave a sign of life just now; True also for what is never asked."""
        ...


@dataclass(slots=True)
class Keeper:
    kept: Kept
    say: Say
    _failures: int = 0
    _launched_at: float = field(default_factory=time.monotonic)

    async def bring_up(self) -> None:
        """Until it is ready. Raises ``StackError`` with its last words when it ends again and again, or is never ready."""
        began = time.monotonic()
        self._launch()
        while not (self.kept.exit_status is None and await self.kept.is_ready()):
            if self.kept.exit_status is not None:
                if self._failures + 1 >= STARTS_BEFORE_GIVING_UP and time.monotonic() - began > ENDING_SECONDS:
                    raise StackError(f"{self.kept.name} ends at start:\n{self.kept.last_words()}")
                await self._relaunch_after_a_while()
            elif time.monotonic() - began > START_SECONDS:
                raise StackError(f"{self.kept.name} was not ready within {START_SECONDS:.0f} s:\n{self.kept.last_words()}")
            await asyncio.sleep(TICK_SECONDS / 2)
        self._failures = 0

    async def keep(self) -> None:
        """For ever."""
        while True:
            reason = await self._until_down()
            self.say(f"{self.kept.name} {reason}; starting it again")
            try:
                await self._relaunch_after_a_while()
            except (StackError, OSError) as error:
                self.say(f"{self.kept.name} could not be started: {error}")

    async def _until_down(self) -> str:
        """Why it must be started again; by then it has ended."""
        stopped_since: float | None = None
        answered_at = probed_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if (status := self.kept.exit_status) is not None:
                return f"ended with status {status}"
            now = time.monotonic()
            stopped_since = (stopped_since or now) if self.kept.pid is not None and is_stopped(self.kept.pid) else None
            if stopped_since is not None and now - stopped_since >= STOPPED_SECONDS:
                return await self._killed(f"was stopped for {STOPPED_SECONDS:.0f} s")
            if now - probed_at >= PROBE_EVERY_SECONDS:
                answers = await self.kept.answers()
                probed_at = time.monotonic()
                answered_at = probed_at if answers else answered_at
                if probed_at - answered_at >= SILENT_SECONDS:
                    return await self._killed(f"gave no answer for {SILENT_SECONDS:.0f} s")

    async def _killed(self, reason: str) -> str:
        self.kept.kill()
        while True:
            await asyncio.sleep(TICK_SECONDS / 10)
            if self.kept.exit_status is not None:
                return reason

    async def _relaunch_after_a_while(self) -> None:
        if time.monotonic() - self._launched_at >= HEALTHY_AFTER_SECONDS:
            self._failures = 0
        await asyncio.sleep(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self._failures, MAX_DOUBLINGS)))
        self._failures += 1
        self._launch()

    def _launch(self) -> None:
        self._launched_at = time.monotonic()
        self.kept.launch()
