"""A loopback TCP proxy with the faults of a bad network: delay, throttle, silence, half-open connections, cuts.

It lives in a thread of its own, so that a test that waits without its loop delays nothing that passes here. It understands
nothing of what passes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 65_536
LOOK_SECONDS = 0.02
BOUND_SECONDS = 20.0

Address = tuple[str, int] | Path  # a path is a Unix socket's


@dataclass
class FaultProxy:
    """``upstream`` is asked at every connection. The next four fields are how the network is from now on.

    ``silent``: nothing passes, nobody is told, and what was sent meanwhile arrives when it is over: as on a real network.
    ``mute_after``: a connection that was asked all of these, in this order, brings no answer any more. What is asked is done,
    and who asked does not hear of it.
    """

    upstream: Callable[[], Address]
    delay_seconds: float = 0.0  # of every block, each way
    bytes_per_second: int | None = None
    silent: bool = False
    mute_after: Sequence[bytes] = ()
    port: int = 0
    passed_bytes: int = 0
    connections: int = 0
    _open: dict[asyncio.StreamWriter, asyncio.StreamWriter | None] = field(default_factory=dict, init=False)
    _serving: int = field(default=0, init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _over: asyncio.Event = field(init=False)
    _up: threading.Event = field(default_factory=threading.Event, init=False)

    # ---- from the test's thread ----

    def cut(self) -> None:
        """Every connection breaks off, as seen from both ends."""
        self._loop.call_soon_threadsafe(self._break, True)

    def half_open(self) -> None:
        """Every connection breaks off for who serves; who called keeps one that says nothing any more and never ends."""
        self._loop.call_soon_threadsafe(self._break, False)

    def heal(self) -> None:
        self.delay_seconds, self.bytes_per_second, self.silent = 0.0, None, False
        self.mute_after = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ---- in its own ----

    def live(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()
        server.close()
        self.heal()
        async with asyncio.timeout(BOUND_SECONDS):
            while self._serving:
                self._break(True)
                await asyncio.sleep(LOOK_SECONDS)  # polling the end of all

    def begin(self) -> None:
        assert self._up.wait(BOUND_SECONDS)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)

    def _break(self, both: bool) -> None:
        for near, far in list(self._open.items()):
            if far is not None:
                far.transport.abort()
                self._open[near] = None
            if both:
                near.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving += 1
        try:
            await self._between(reader, near)
        finally:
            self._serving -= 1

    async def _between(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            await self._while_silent()
            far_reader, far = await self._connected()
        except OSError:
            near.transport.abort()
            return
        self._open[near] = far
        asked = _Asked()
        pumps = [
            asyncio.create_task(self._forth(reader, far, asked)),
            asyncio.create_task(self._back(far_reader, near, asked)),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if self._open.pop(near) is not None:
                near.transport.abort()
            else:
                await self._left_alone(reader, near)
            far.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        upstream = self.upstream()
        if isinstance(upstream, Path):
            return await asyncio.open_unix_connection(str(upstream))
        return await asyncio.open_connection(*upstream)

    async def _forth(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter, asked: _Asked) -> None:
        while block := await reader.read(self._block_bytes()):
            asked.hear(block, self.mute_after)
            await self._pass(block, far)
        far.write_eof()

    async def _back(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter, asked: _Asked) -> None:
        """The answers; the end of a half-open connection is nothing its caller hears of."""
        while block := await reader.read(self._block_bytes()):
            while self.mute_after and asked.marks >= len(self.mute_after):
                await asyncio.sleep(LOOK_SECONDS)  # polling what another thread sets
            await self._pass(block, near)
        if self._open.get(near) is not None:
            near.write_eof()

    async def _pass(self, block: bytes, writer: asyncio.StreamWriter) -> None:
        await self._while_silent()
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)  # the fault itself
        if self.bytes_per_second is not None:
            await asyncio.sleep(len(block) / self.bytes_per_second)  # the fault itself
        writer.write(block)
        await writer.drain()
        self.passed_bytes += len(block)

    def _block_bytes(self) -> int:
        return CHUNK_BYTES if self.bytes_per_second is None else max(self.bytes_per_second // 20, 1)

    async def _while_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(LOOK_SECONDS)  # polling what another thread sets

    async def _left_alone(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        """Half-open: its caller's words vanish until the caller gives up."""
        self._open[near] = None
        try:
            while await reader.read(CHUNK_BYTES):
                pass
        except OSError:
            pass
        finally:
            self._open.pop(near, None)
            near.transport.abort()


@dataclass
class _Asked:
    """How many of the marks one connection has been asked."""

    marks: int = 0

    def hear(self, block: bytes, marks: Sequence[bytes]) -> None:
        if not marks:
            self.marks = 0
        while self.marks < len(marks) and marks[self.marks] in block:
            self.marks += 1


@contextmanager
def faulty(upstream: Callable[[], Address]) -> Generator[FaultProxy]:
    """In front of ``upstream`` until the block is left; a healthy network to begin with."""
    proxy = FaultProxy(upstream)
    thread = threading.Thread(target=proxy.live, name="fault-proxy")
    thread.start()
    proxy.begin()
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join(BOUND_SECONDS)
        assert not thread.is_alive()
