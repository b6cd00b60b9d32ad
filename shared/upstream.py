"""Reading a stream of another service: GET, de-chunk, hand on what arrived. The hot half of every relay.

Nothing here parses what flows through. A clean end is the last chunk and nothing else: a connection that closes before it
was cut. A reader that takes nothing stops the connection from being read, so a slow caller slows its source, not our memory.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from shared.contracts.problems import error_of
from shared.http import NeverSentError, UnknownOutcomeError
from shared.sse import CutError
from shared.waiter import Waiter

MAX_UNREAD_BYTES = 256 * 1024
ANSWER_SECONDS = 10.0
MAX_PROBLEM_BYTES = 64 * 1024


class _Target(NamedTuple):
    host: str
    port: int
    tls: bool
    authority: str
    path: str


def _target(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError(f"not an http URL: {url[:200]}")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.hostname, parts.port or (443 if tls else 80), tls, parts.netloc.rpartition("@")[2], path)


def _request(target: _Target, headers: Mapping[str, str]) -> bytes:
    """Raises ``ValueError`` for what would be read as another header or request."""
    lines = [f"GET {target.path} HTTP/1.1", f"host: {target.authority}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if " " in target.path or any(not line.isprintable() for line in lines):
        raise ValueError("a request line holds a space or a control character")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def open_stream(
    url: str,
    headers: Mapping[str, str],
    connect_timeout: float,
    answer_timeout: float = ANSWER_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> Upstream:
    """An open stream, answered 2xx; close it. Timeouts are seconds until connected, and then until the answer's head.

    Raises ``RunyardError`` with the peer's problem, ``NeverSentError`` when nothing listens there, ``UnknownOutcomeError``
    when no understandable answer came.
    """
    target = _target(url)
    request = _request(target, headers)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(connect_timeout):
            _, upstream = await loop.create_connection(
                Upstream, target.host, target.port, ssl=(tls or True) if target.tls else None
            )
    except (OSError, TimeoutError) as error:
        raise NeverSentError(f"{target.authority}: {str(error) or 'no connection in time'}") from error
    try:
        await upstream.ask(request, answer_timeout)
        if not 200 <= upstream.status < 300:
            await _refuse(upstream, answer_timeout)
    except BaseException:
        await upstream.close()
        raise
    return upstream


async def _refuse(upstream: Upstream, within: float) -> None:
    content = b""
    try:
        async with asyncio.timeout(within):
            while len(content) <= MAX_PROBLEM_BYTES and (block := await upstream.next(within)) is not None:
                content += block
    except (TimeoutError, CutError) as error:
        raise UnknownOutcomeError(f"answered {upstream.status}, then broke off") from error
    problem = error_of(upstream.status, content, upstream.headers.get("retry-after"))
    raise problem if problem is not None else UnknownOutcomeError(f"answered {upstream.status} without a problem")


class Upstream(asyncio.Protocol):
    """One answer on one connection, one reader. ``status`` and ``headers`` (names lower case) are set when opened.

    Keeps the shape of ``shared.sse.Blocks``. A body that only the closing of its connection would end counts as cut.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._blocks: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._headed = False
        self._whole = False
        self._lost: str | None = None
        self._waiter = Waiter()

    async def ask(self, request: bytes, within: float) -> None:
        """Send the request and wait for the head of its answer. Raises ``UnknownOutcomeError``."""
        assert self._transport is not None
        self._transport.write(request)
        deadline = self._loop.time() + within
        while not self._headed and self._lost is None and (left := deadline - self._loop.time()) > 0:
            await self._waiter.wait(left)
        if not self._headed:
            raise UnknownOutcomeError(self._lost or f"no answer within {within:g} s")

    async def next(self, within: float) -> bytes | None:
        """Everything that arrived, joined; b"" when nothing did for ``within`` seconds; None at the clean end.

        Raises ``CutError`` where the connection broke off, after everything that arrived before was taken.
        """
        if not self._blocks and not self._whole and self._lost is None:
            await self._waiter.wait(within)
        if self._blocks:
            return self._take()
        if self._whole:
            return None
        if self._lost is not None:
            raise CutError(self._lost)
        return b""

    async def close(self) -> None:
        """Drop the connection at once; what was not taken is gone. Any number of times."""
        self.abort()

    def abort(self) -> None:
        """``close`` for a caller that cannot wait; the reader sees a cut."""
        self._lost = self._lost or "closed by its reader"
        self._blocks.clear()
        if self._transport is not None:
            self._transport.abort()
        self._waiter.close()
        self._waiter.wake()

    def _take(self) -> bytes:
        block = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        self._blocks.clear()
        self._unread = 0
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return block

    # ---- what asyncio calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
        else:
            if self._whole:
                self._end(None)
            elif self._unread >= MAX_UNREAD_BYTES and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        self._waiter.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc or "the connection closed before the last chunk"))
        self._waiter.wake()

    def _end(self, reason: str | None) -> None:
        """No more bytes; ``reason`` None: the answer is whole."""
        if not self._whole:
            self._lost = self._lost or reason
        self._parser = None
        if self._transport is not None:
            self._transport.abort()

    # ---- what httptools calls ----

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        self._headed = True

    def on_body(self, body: bytes) -> None:
        self._blocks.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        self._whole = True
