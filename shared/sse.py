"""Server-sent events as bytes: frames out, frames in, and one response that writes them.

Nothing here parses JSON. A frame is encoded once and shared by all its readers; a relay forwards it untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import randint
from typing import NamedTuple, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.clock import monotonic

HEARTBEAT = b": hb\n\n"
COME_BACK = b": this server is about to end; the stream goes on at another one, after the last id\nretry: %d\n\n"
COME_BACK_MS = (50, 250)  # not all at the same moment
END = b"\n\n"
STALL_SECONDS = 30.0
LOOKS_PER_STALL = 3
MAX_FRAME_BYTES = 16 * 1024 * 1024
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Frame(NamedTuple):
    """One event of a stream, undecoded: its SSE id (b"" when it has none), its kind, its JSON."""

    id: bytes
    event: bytes
    data: bytes


def encode(id: int | str, event: str, data: bytes) -> bytes:
    """``data`` is one line of JSON (it holds no raw newline)."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(id).encode(), event.encode(), data)


class FrameReader:
    """Cuts a byte stream into frames, however it was split. Comments (heartbeats) and empty frames vanish.

    ``feed`` raises ``ValueError`` when an unfinished frame passes ``max_bytes``.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._rest = b""
        self._max_bytes = max_bytes

    def feed(self, block: bytes) -> list[Frame]:
        whole, found, self._rest = (self._rest + block if self._rest else block).rpartition(END)
        if len(self._rest) > self._max_bytes:
            raise ValueError(f"a frame is longer than {self._max_bytes} bytes")
        if not found:
            return []
        return [frame for text in whole.split(END) if (frame := _frame(text)) is not None]


def _frame(text: bytes) -> Frame | None:
    id = event = data = b""
    for line in text.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"data":
            data = value
        elif name == b"event":
            event = value
        elif name == b"id":
            id = value
    return Frame(id, event, data) if data else None


class CutError(Exception):
    """The source broke off: the reader must see a cut, not an end."""


class SentAway(Exception):
    """The source goes on, but not at this process, which is about to end: the reader is asked to come back at once."""


class Blocks(Protocol):
    """A source of whole frames. One reader; closing it releases everything it holds."""

    async def next(self, within: float) -> bytes | None:
        """All frames that are ready, in one piece; b"" when there were none for ``within`` seconds; None at the end.

        Raises ``CutError`` where the source broke off, ``SentAway`` where it goes on elsewhere.
        """
        ...

    async def close(self) -> None: ...


class EventStream(Response):
    """Streams ``Blocks``: heartbeat comments while it is silent, closes the source when its caller leaves.

    A caller that takes nothing for ``STALL_SECONDS`` (and at most a third longer) is cut off: it resumes by cursor. Bare ASGI:
    no task and no timer per block.
    """

    def __init__(self, blocks: Blocks, heartbeat_seconds: float, retry_ms: int | None = None) -> None:
        super().__init__()
        self._blocks = blocks
        self._heartbeat_seconds = heartbeat_seconds
        self._first = HEARTBEAT if retry_ms is None else b"retry: %d\n\n" % retry_ms
        self._giving_since: float | None = None
        self._is_stalled = False
        self._direct: Send | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await self._blocks.close()
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._direct = scope.get(DIRECT, send)
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        self._look_after(pump)
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (pump, gone, self._next_look):
                each.cancel()
            results = await asyncio.gather(pump, gone, return_exceptions=True)
            await self._blocks.close()
        match results[0]:
            case CutError() | TimeoutError():
                abort(scope)
            case asyncio.CancelledError() | None:
                if self._is_stalled:
                    abort(scope)
            case failure:
                abort(scope)
                raise failure

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await self._give(self._first)
        try:
            while (block := await self._blocks.next(self._heartbeat_seconds)) is not None:
                await self._give(block or HEARTBEAT)
        except SentAway:
            await self._give(COME_BACK % randint(*COME_BACK_MS))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _give(self, body: bytes) -> None:
        """One block, as soon as the caller has taken enough of what came before."""
        assert self._direct is not None
        self._giving_since = monotonic()
        await self._direct({"type": "http.response.body", "body": body, "more_body": True})
        self._giving_since = None

    def _look_after(self, pump: asyncio.Task[None]) -> None:
        """End it when a block could not be given for too long: a look now and then, because a timer per block costs as much
        as the block."""
        self._is_stalled = self._giving_since is not None and monotonic() - self._giving_since >= STALL_SECONDS
        if self._is_stalled:
            pump.cancel()
        self._next_look = pump.get_loop().call_later(STALL_SECONDS / LOOKS_PER_STALL, self._look_after, pump)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# ASGI has no word for «cut this connection off», and an orderly end would be a lie to the reader: without the last chunk it
# knows that the stream was cut. ``shared.server`` puts the transport's abort into the scope.
ABORT = "runyard.abort"
# The server's own ``send``: the wrappers in between care for the head of an answer only, and cost as much as a block.
DIRECT = "runyard.send"


def abort(scope: Scope) -> None:
    """Cut the connection of this request, so that its reader sees a cut instead of an end."""
    cut: Callable[[], None] | None = scope.get(ABORT)
    if cut is not None:
        cut()
