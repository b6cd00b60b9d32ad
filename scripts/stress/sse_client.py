"""One connection to a run's stream, read by ``curl -N`` where there is one, as a caller's own client would: another process,
another HTTP implementation than the servers', and an exit code that says how the connection ended. By httpx otherwise.

Every byte is written to the raw file before it is looked at; a comment line stands there where one connection followed
another. The key travels on stdin, never in argv.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from shared.sse import Frame, FrameReader

CONNECT_SECONDS = 5
EXIT_SECONDS = 5.0
BLOCK = 65_536
CURL_TIMED_OUT = 28
CURL_REFUSED = 22
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Ended(StrEnum):
    """How a connection ended. A whole stream and one cut politely are both ``eof``: only the last event tells them apart."""

    EOF = "eof"
    CUT = "cut"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"


@dataclass(slots=True)
class Connection:
    """Where it goes and, once its frames are read, how it ended. ``exit`` is curl's, None without curl."""

    url: str
    key: str | None
    cursor: int
    seconds: float
    folder: Path
    ended: Ended | None = None
    exit: int | None = None

    async def frames(self) -> AsyncGenerator[Frame]:
        """The frames as they come; raises nothing for a connection that fails."""
        reader = FrameReader()
        blocks = self._by_curl() if shutil.which("curl") else self._by_httpx()
        with (self.folder / "sse.raw.txt").open("ab", buffering=0) as raw:
            if raw.tell():
                raw.write(b"\n\n: connected again, after event %d\n\n" % self.cursor)
            async with aclosing(blocks):
                async for block in blocks:
                    raw.write(block)
                    for frame in reader.feed(block):
                        yield frame

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self.cursor)}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    async def _by_curl(self) -> AsyncGenerator[bytes]:
        with (self.folder / "curl.stderr.txt").open("ab") as complaints:
            process = await asyncio.create_subprocess_exec(
                "curl", "-q", "-N", "--config", "-",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=complaints,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(self._config().encode())
            process.stdin.close()
            while block := await process.stdout.read(BLOCK):
                yield block
            async with asyncio.timeout(EXIT_SECONDS):
                self.exit = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.ended = {0: Ended.EOF, CURL_TIMED_OUT: Ended.TIMED_OUT, CURL_REFUSED: Ended.REFUSED}.get(self.exit, Ended.CUT)

    def _config(self) -> str:
        options = {"url": self.url, "max-time": f"{self.seconds:.3f}", "connect-timeout": str(CONNECT_SECONDS)}
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        lines += [f"header = {json.dumps(f'{name}: {value}')}" for name, value in self._headers().items()]
        lines += ["silent", "show-error", "fail-with-body"]
        if urlsplit(self.url).hostname in _LOOPBACK:
            lines.append('noproxy = "*"')
        return "\n".join(lines) + "\n"

    async def _by_httpx(self) -> AsyncGenerator[bytes]:
        try:
            async with asyncio.timeout(self.seconds), aclosing(self._blocks()) as blocks:
                async for block in blocks:
                    yield block
            self.ended = self.ended or Ended.EOF
        except TimeoutError:
            self.ended = Ended.TIMED_OUT
        except httpx.TransportError:
            self.ended = Ended.CUT

    async def _blocks(self) -> AsyncGenerator[bytes]:
        is_local = urlsplit(self.url).hostname in _LOOPBACK
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=not is_local) as http,
            http.stream("GET", self.url, headers=self._headers()) as answer,
        ):
            if answer.status_code >= 400:
                self.ended = Ended.REFUSED
            blocks: AsyncIterator[bytes] = answer.aiter_raw()
            async for block in blocks:
                yield block
