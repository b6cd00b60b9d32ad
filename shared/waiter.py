"""Waiting for a word again and again: the hot wait of every tail and every relay. Knows nothing of what is waited for."""

from __future__ import annotations

import asyncio


class Waiter:
    """One task waits, anybody wakes it. Its timer is kept from wait to wait: making and cancelling one each time would be a
    tenth of what it costs to deliver an event. ``close`` it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, within: float) -> None:
        """Until ``wake``, or until ``within`` seconds are over."""
        self._due = self._loop.time() + within
        if self._timer is None or self._timer.when() > self._due:
            self.close()
            self._timer = self._loop.call_later(within, self._look)
        self._future = self._loop.create_future()
        try:
            await self._future
        finally:
            self._future = None

    def wake(self) -> None:
        """Of no effect while nobody waits."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def close(self) -> None:
        """Let go of the timer; who waits now waits for a ``wake``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The timer was set for an earlier wait, perhaps."""
        self._timer = None
        if self._future is None:
            return
        left = self._due - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.wake()
