"""A program that is started for what it prints, and for nothing else. Its process tree is gone when the caller goes on."""

from __future__ import annotations

import asyncio

from executor.adapters.base import Stream
from executor.processes.engine_process import EngineProcess, Launch
from executor.processes.process_tree import Forest, Tree


class Printed:
    """What a program printed, up to a limit."""

    def __init__(self, max_bytes: int) -> None:
        self.output = bytearray()
        self.exit_code: int | None = None
        self.changed = asyncio.Event()
        self._max_bytes = max_bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def on_bytes(self, stream: Stream, chunk: bytes) -> None:
        self.output += chunk[: self._max_bytes - len(self.output)]

    def on_change(self) -> None:
        self.changed.set()


async def answer_of(
    forest: Forest, what: Launch, run_mark: str, seconds: float, *, max_bytes: int, stdin: bytes = b""
) -> Printed:
    """Of a program that ended by itself. Raises ``TimeoutError``, and ``OSError`` where it cannot be started."""
    printed = Printed(max_bytes)
    process, tree = await forest.plant(what, printed, run_mark)
    try:
        if stdin:
            process.send(stdin)
        process.close_input()
        async with asyncio.timeout(seconds):
            while process.exit_code is None or process.has_open_output:
                printed.changed.clear()
                await printed.changed.wait()
        printed.exit_code = process.exit_code
    finally:
        await _all_of(asyncio.create_task(_take_down(forest, process, tree)))
    return printed


async def _take_down(forest: Forest, process: EngineProcess, tree: Tree) -> None:
    await forest.end_surely(tree, 0, asyncio.Event())
    process.close()
    forest.forget(tree)


async def _all_of(work: asyncio.Task[None]) -> None:
    """Whoever hurries us waits for this, too: half of it would leave a process that nobody knows."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise
