"""Lines typed at a terminal. Reading them never holds up the loop, and what nobody had asked for yet can be dropped."""

from __future__ import annotations

import asyncio
import os
import select
import termios
from contextlib import suppress

_BLOCK_BYTES = 4096


class Keyboard:
    """Of the terminal behind ``descriptor``, which stays in line mode: it sends lines, or what stood before a Ctrl-D."""

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._typed = b""
        self._has_ended = False

    async def line(self) -> str | None:
        """The next one, or None at the end of input. Nothing is lost when this is cancelled."""
        while b"\n" not in self._typed and not self._has_ended:
            await self._readable()
            self._read()
        if self._has_ended:
            return None
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode(self._encoding, "replace")

    def forget(self) -> None:
        """Drop what was typed until now. Not where another program has the terminal: what is typed is for that one."""
        self._typed = b""
        if not self._has_ended and self._is_ours():
            with suppress(termios.error):
                termios.tcflush(self._descriptor, termios.TCIFLUSH)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def _read(self) -> None:
        """Looks once more: what made it readable may have been dropped since, and then reading would wait."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return
        try:
            block = os.read(self._descriptor, _BLOCK_BYTES)
        except OSError:  # the terminal is gone
            block = b""
        self._typed += block
        self._has_ended = not block

    def _is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # it is not our session's: no shell hands it from one program to the next
            return True
