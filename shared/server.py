"""Serving an app: uvicorn with its C parts, an orderly end, and a way to cut a connection."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http_protocol import BoundedHttpProtocol
from shared.sse import ABORT, DIRECT

SHUTDOWN_SECONDS = 2


def _abortable(app: ASGIApp) -> ASGIApp:
    """Put the transport's ``abort`` and the server's own ``send`` into the scope; see ``shared.sse``."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            scope[ABORT] = transport.abort
            scope[DIRECT] = send
        await app(scope, receive, send)

    return wrapped


class _CutsAreMeant(logging.Filter):
    """uvicorn calls a response that was cut off on purpose an error; it is not."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "returned without completing response" not in record.getMessage()


class Stopping:
    """What is to happen when this process is asked to end, before its connections are closed."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []

    def on(self, callback: Callable[[], None]) -> None:
        """To be called on this event loop: a signal handler may interrupt it at any point."""
        self._callbacks.append(partial(asyncio.get_running_loop().call_soon_threadsafe, callback))

    def begin(self, _number: int) -> bool:
        """``on_signal`` of ``serve``: there is nothing to wait for."""
        for callback in self._callbacks:
            callback()
        return True


OnSignal = Callable[[int], bool]


def serve(build: Callable[[], ASGIApp], host: str, port: int, on_signal: OnSignal | None = None) -> None:
    """Serve until SIGTERM or SIGINT; ``on_signal`` is called with each one, before connections are closed.

    It says whether to stop serving now. Who says no calls ``end_this_process`` later, and is asked again.

    ``build`` makes the app inside the event loop: some of its parts (a connection pool) belong to one loop for ever.
    """
    logging.getLogger("uvicorn.error").addFilter(_CutsAreMeant())
    allow_open_files()
    config = uvicorn.Config(
        lambda: _abortable(build()), factory=True, host=host, port=port, loop="uvloop", http=BoundedHttpProtocol,
        ws="none", lifespan="on", log_config=None, access_log=False, server_header=False, backlog=4096,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS, timeout_keep_alive=75,
    )  # fmt: skip
    server = _Server(config, on_signal)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal once more when all is over
        server.run(sockets=[_listening(host, port)])


def allow_open_files() -> None:
    """As many as the system lets us have: a relayed stream takes two, and the usual soft limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_signal: OnSignal | None) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._on_signal is None or self.should_exit or self._on_signal(sig):
            super().handle_exit(sig, frame)


def _listening(host: str, port: int) -> socket.socket:
    """Bound before the app starts, so that a taken port is an error at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(False)
    return listener


def end_this_process() -> None:
    """Ask our own server to stop, as if the operator had."""
    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
