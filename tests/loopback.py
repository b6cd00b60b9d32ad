"""Real servers for tests: an ASGI app, or a bare byte script, on a loopback port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from shared.http_protocol import BoundedHttpProtocol
from shared.server import _abortable, allow_open_files

BOUND_SECONDS = 20.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        """Signals belong to the test runner."""
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, port: int = 0, host: str = "127.0.0.1", http: type[BoundedHttpProtocol] = BoundedHttpProtocol
) -> AsyncGenerator[str]:
    """The base URL of ``app``, served as our services are, in this loop. Ends cutting off what is still open."""
    allow_open_files()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    config = uvicorn.Config(
        _abortable(app), http=http, ws="none", lifespan="on", log_config=None, access_log=False, backlog=4096,
        timeout_graceful_shutdown=1, timeout_keep_alive=75,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or task.done())
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, BOUND_SECONDS)
        listener.close()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncGenerator[str]:
    """A server that does exactly what ``script`` does with each connection, after its request's head was read."""

    conversations: set[asyncio.Task[None] | None] = set()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in filter(None, conversations):
            task.cancel()
        await asyncio.gather(*filter(None, conversations))


def unused_port() -> int:
    """A port nobody listens on: connections to it are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(true: Callable[[], bool], within: float = BOUND_SECONDS) -> None:
    """Look until it is so. Raises ``TimeoutError`` when it never becomes so."""
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.005)  # polls the condition, bounded by the line above
