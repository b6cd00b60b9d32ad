"""A loopback proxy in front of an API that breaks event streams off, as a bad network does: connections just end.

A run whose prompt holds ``CUT FOREVER`` never gets more than its first bytes; of the others every third loses its first stream.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MARK = b"CUT FOREVER"
FIRST_BYTES = 500  # the head of the answer and the beginning of an event
LATER_BYTES = 1_200
_STREAM = re.compile(rb"GET /api/runs/([^/]+)/stream")
_RUN = re.compile(rb'"runId":"([^"]+)"')


@dataclass
class CuttingProxy:
    upstream: tuple[str, int]
    url: str = ""
    marked: set[bytes] = field(default_factory=set[bytes])
    streams: dict[bytes, int] = field(default_factory=dict[bytes, int])
    cuts: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.close()
            return
        said = _Said()
        asking = asyncio.create_task(self._ask(reader, there_writer, said))
        try:
            await self._answer(there_reader, writer, said)
        except OSError:
            pass
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            there_writer.close()
            writer.transport.abort() if said.allowed == 0 else writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: _Said) -> None:
        while block := await reader.read(65_536):
            said.is_marked = MARK in block
            if (stream := _STREAM.match(block)) is not None:
                said.allowed = self._allowed(stream[1])
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: _Said) -> None:
        while block := await reader.read(65_536):
            if said.is_marked and (run := _RUN.search(block)) is not None:
                self.marked.add(run[1])
            if said.allowed is not None:
                block, said.allowed = block[: said.allowed], max(said.allowed - len(block), 0)
            writer.write(block)
            await writer.drain()
            if said.allowed == 0:
                self.cuts += 1
                return

    def _allowed(self, run: bytes) -> int | None:
        """How many bytes this stream may bring; None for all."""
        is_first = run not in self.streams
        self.streams.setdefault(run, len(self.streams))
        if run in self.marked:
            return FIRST_BYTES
        return LATER_BYTES if is_first and self.streams[run] % 3 == 0 else None


@dataclass
class _Said:
    """What one connection is about."""

    is_marked: bool = False
    allowed: int | None = None


@asynccontextmanager
async def cutting(url: str) -> AsyncGenerator[CuttingProxy]:
    """In front of ``url`` until the block is left."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = CuttingProxy((parts.hostname, parts.port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        async with asyncio.timeout(10):
            await server.wait_closed()
