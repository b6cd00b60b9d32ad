"""Which workspaces stand here, newest first: told at once to whoever asks, looked up beside.

A look costs microseconds a workspace, there may be a hundred thousand, and several managers ask several times a second. So it is
made in a thread, now and then. What this executor begins itself is known at once, what happens in a folder that executors share
at the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from executor.workspaces.workspace import LISTED_WORKSPACES, workspace_keys
from shared.clock import monotonic

LOOK_SECONDS = 5.0
REST_FOR_LOOKING = 20  # a look that took a second is followed by so many without one


class KnownWorkspaces:
    """``look`` once before anybody asks; ``keep_looking`` until cancelled."""

    def __init__(self, root: Path, look: Callable[[Path], list[str]] = workspace_keys) -> None:
        self._root = root
        self._look = look
        self._keys: list[str] = []
        self._used: dict[str, None] = {}  # since the latest look began, oldest first

    def keys(self) -> list[str]:
        """At most ``LISTED_WORKSPACES``."""
        return [*reversed(self._used), *(key for key in self._keys if key not in self._used)][:LISTED_WORKSPACES]

    def used(self, key: str) -> None:
        """An attempt works there: it is the newest."""
        self._used.pop(key, None)
        if len(self._used) >= LISTED_WORKSPACES:
            del self._used[next(iter(self._used))]
        self._used[key] = None

    def gone(self, key: str) -> None:
        """It was deleted. A look that saw it before tells of it once more."""
        self._used.pop(key, None)
        self._keys = [each for each in self._keys if each != key]

    async def look(self) -> None:
        meanwhile, self._used = self._used, {}
        self._keys = [*reversed(meanwhile), *(key for key in self._keys if key not in meanwhile)]
        self._keys = await asyncio.to_thread(self._look, self._root)

    async def keep_looking(self) -> None:
        while True:
            began = monotonic()
            await self.look()
            await asyncio.sleep(max(LOOK_SECONDS, REST_FOR_LOOKING * (monotonic() - began)))
