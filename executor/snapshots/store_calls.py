"""Calls of a snapshot store, which may answer late or never: a disk of the network that hangs cannot be interrupted.

Each call has a thread of its own, which nobody joins; at most ``THREADS`` hang at once. Whoever waits is let go when its patience
ends, whatever becomes of the call: so a call may still do its work when nobody wants it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

from executor.snapshots.blobs import BlobError, GoesOn

THREADS = 8
LOOK_SECONDS = 0.05

T = TypeVar("T")


class StoreCalls:
    """For one event loop."""

    def __init__(self) -> None:
        self._busy = 0

    async def make(self, call: Callable[[], T], goes_on: GoesOn) -> T:
        """What the call answers, or raises. Raises ``BlobError`` when the store does not answer in time, or cannot be asked."""
        while self._busy >= THREADS:
            if not goes_on():
                raise BlobError(f"the snapshot store was not asked: {THREADS} other calls of it were not over in time")
            await asyncio.sleep(LOOK_SECONDS)
        answer = self._begun(call)
        try:
            while not answer.done():
                if not goes_on():
                    raise BlobError("the snapshot store does not answer")
                await asyncio.wait((answer,), timeout=LOOK_SECONDS)
            return answer.result()
        finally:
            answer.cancel()

    def _begun(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Raises ``BlobError`` where there can be no further thread."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def over(settle: Callable[[], None]) -> None:
            self._busy -= 1
            if not answer.done():
                settle()

        def work() -> None:
            settle = _outcome(call, answer)
            with suppress(RuntimeError):  # the loop has ended, and everybody with it
                loop.call_soon_threadsafe(over, settle)

        try:
            Thread(target=work, name="snapshot-store", daemon=True).start()
        except RuntimeError as error:
            raise BlobError(f"the snapshot store cannot be asked: {error}") from error
        self._busy += 1
        return answer


def _outcome(call: Callable[[], T], answer: asyncio.Future[T]) -> Callable[[], None]:
    """What is to be done with the answer, by whoever may: the loop it belongs to."""
    try:
        return partial(answer.set_result, call())
    except Exception as error:  # noqa: BLE001  (handed to whoever waits)
        return partial(answer.set_exception, error)
