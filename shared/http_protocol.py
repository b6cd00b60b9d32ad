"""uvicorn's HTTP protocol with an end to its patience: what has not shown a key yet takes little memory and little time.

Never touches a request that has come whole, nor its answer: a stream stays open as long as it likes. Of uvicorn it uses
``cycle.response_complete``, ``flow.read_paused`` and ``send_400_response`` beside what it overrides.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. It is closed when a head has not come within ``head_seconds`` of the connection, or of its first byte on a
    connection that was used before; when nothing of a body comes for ``body_seconds`` though we would read it; and when
    more than ``MAX_HEAD_BYTES`` (and one read) come that make neither a whole head nor a piece of a body.

    Between requests uvicorn's keep-alive holds.
    """

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    _senseless_bytes = 0  # came since the last head or piece of a body
    _due: float | None = None  # when the rest must have come; None: nothing has come by half
    _held_up = False  # by ourselves, since the last look
    _next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._due is None and not self._is_answering():
            self._wait(self.head_seconds)
        self._senseless_bytes += len(data)
        super().data_received(data)
        self._held_up = self.flow.read_paused
        if self._senseless_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        self._moved()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._senseless_bytes = 0
        self._due = None
        super().on_message_complete()

    def _moved(self) -> None:
        self._senseless_bytes = 0
        self._wait(self.body_seconds)

    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _refuse(self) -> None:
        if self._is_answering():  # an error in the midst of an answer would be read as part of it
            self.transport.abort()
        else:
            self.send_400_response(f"The head of a request is at most {MAX_HEAD_BYTES} bytes long.")

    def _wait(self, seconds: float) -> None:
        """Only the deadline moves: a timer for every piece would cost more than the piece."""
        self._due = self.loop.time() + seconds
        if self._next_look is not None:
            if self._next_look.when() <= self._due:
                return
            self._next_look.cancel()
        self._next_look = self.loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._next_look = None
        if self._due is None:
            return
        if self._held_up:  # what is late is our own reading; from here on it may be the peer
            self._held_up = self.flow.read_paused
            self._wait(self.body_seconds)
        elif self.loop.time() >= self._due:
            self.transport.abort()
        else:
            self._next_look = self.loop.call_at(self._due, self._look)
