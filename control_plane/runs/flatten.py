"""A reader of a run for ``?view=workbench``: follows it like any other reader and shows the projection of what it read.

It decodes what it reads; that is why it stands beside the tail and not in it.
"""

from __future__ import annotations

from control_plane.views.workbench import Workbench
from shared.clock import Monotonic, monotonic
from shared.sse import Blocks, FrameReader


class Flattened:
    """``shared.sse.Blocks`` over the frames of a run from its first event on."""

    def __init__(self, events: Blocks, view: Workbench, clock: Monotonic = monotonic) -> None:
        self._events = events
        self._view = view
        self._clock = clock
        self._reader = FrameReader()

    async def next(self, within: float) -> bytes | None:
        """What the next events show. b"" after ``within`` seconds, also while many events come that show nothing."""
        end = self._clock() + within
        while (left := end - self._clock()) > 0:
            block = await self._events.next(left)
            if not block:
                return block
            shown = b"".join(self._view.frames(frame.data) for frame in self._reader.feed(block))
            if shown:
                return shown
        return b""

    async def close(self) -> None:
        await self._events.close()
