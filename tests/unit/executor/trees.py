"""Plants trees of real processes, hears them, and ends them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from executor.adapters.base import STDERR, STDOUT, Stream
from executor.processes.engine_process import EngineProcess, Launch
from executor.processes.process_tree import Forest, Tree
from executor.state_dir import MARK, RUN_MARK

# Of this process alone: a forest ends whatever carries its mark, and other tests run beside these.
OUR_MARK = f"mark-{os.getpid()}"


class Heard:
    def __init__(self) -> None:
        self.output: dict[str, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
        self.changed = asyncio.Event()

    def on_bytes(self, stream: Stream, chunk: bytes) -> None:
        self.output[stream] += chunk
        self.changed.set()

    def on_change(self) -> None:
        self.changed.set()

    async def lines(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while self.output[STDOUT].count(b"\n") < count:
                self.changed.clear()
                await self.changed.wait()
        return self.output[STDOUT].decode().splitlines()


async def planted(forest: Forest, script: str, tmp_path: Path, mark: str = "run.1") -> tuple[EngineProcess, Tree, Heard]:
    heard = Heard()
    env = {"PATH": os.environ["PATH"], MARK: OUR_MARK, RUN_MARK: mark}
    process, tree = await forest.plant(Launch(("/bin/sh", "-c", script), env, str(tmp_path)), heard, mark)
    return process, tree, heard


async def ended(forest: Forest, process: EngineProcess, tree: Tree, grace: float = 5) -> float:
    """Seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        await forest.end(tree, grace, asyncio.Event())
    took = time.monotonic() - began
    process.close()
    forest.forget(tree)
    return took
