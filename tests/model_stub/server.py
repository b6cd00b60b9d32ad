"""The HTTP side: one small server over asyncio streams, so that an answer can be cut in the middle of a chunk.

``GET /requests`` lists what was asked, newest last; of credentials it keeps only that they were there.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from tests.model_stub import anthropic_messages, chat_completions, gemini, openai_responses
from tests.model_stub.scenarios import BreakOff, EndBadly, Refuse, Reply, reply_to

DIALECTS: Mapping[str, ModuleType] = {
    each.PATH: each for each in (openai_responses, anthropic_messages, chat_completions, gemini)
}
BAD_ENDS = (openai_responses, anthropic_messages)  # the dialects that have a word for it; others break off
SECRET_HEADERS = {"authorization", "x-api-key", "x-goog-api-key", "cookie"}
KEPT_REQUESTS = 100
READ_SECONDS = 30
MAX_BODY_BYTES = 64 * 1024 * 1024
BREAK_SECONDS = 0.3  # between the last word and the cut: an engine that meets both at once may never look at the word


class ModelStub:
    """A running stub: where it listens, and what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                method, path, headers, body = await _read(reader)
            await self._answer(writer, method, path.partition("?")[0], headers, body)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        if (method, path) == ("GET", "/requests"):
            await _write_json(writer, 200, list(self.requests))
            return
        dialect = next((each for end, each in DIALECTS.items() if method == "POST" and path.endswith(end)), None)
        if dialect is None:
            await _write_json(writer, 404, {"error": {"message": f"no such route: {method} {path}"}})
            return
        content = json.loads(body)
        asked = dialect.read(content)
        asked = replace(asked, asked_before=any(each["userText"] == asked.user_text for each in self.requests))
        shown = {name: "present" if name in SECRET_HEADERS else value for name, value in headers.items()}
        self.requests.append({"path": path, "headers": shown, "userText": asked.user_text, "body": content})
        reply = reply_to(asked)
        if dialect is chat_completions:
            reply = chat_completions.named(reply, asked.tools)
        await _reply(writer, dialect, reply, content)


async def _reply(writer: asyncio.StreamWriter, dialect: ModuleType, reply: Reply, content: dict[str, Any]) -> None:
    if isinstance(reply, Refuse):
        extra = {} if reply.retry_after is None else {"retry-after": str(reply.retry_after)}
        await _write_json(writer, reply.status, dialect.failure(reply), extra)
        return
    if dialect is anthropic_messages and not anthropic_messages.is_streamed(content):
        await _reply_whole(writer, reply)
        return
    _write_head(writer, 200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    for seconds, frame in dialect.frames(reply):
        if seconds:
            await asyncio.sleep(seconds)  # the model's own pace, told by the scenario
        writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await writer.drain()
    if isinstance(reply, BreakOff) and not (isinstance(reply, EndBadly) and dialect in BAD_ENDS):
        await asyncio.sleep(BREAK_SECONDS)  # the model's own pace
        writer.transport.abort()
        return
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _reply_whole(writer: asyncio.StreamWriter, reply: Reply) -> None:
    if isinstance(reply, BreakOff):
        writer.transport.abort()
        return
    await _write_json(writer, 200, anthropic_messages.whole(reply))


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY_BYTES:
        raise ConnectionError("the body is too long")
    return method, path, headers, await reader.readexactly(length)


def _write_head(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} Stub", "connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


async def _write_json(writer: asyncio.StreamWriter, status: int, value: Any, extra: Mapping[str, str] | None = None) -> None:
    body = json.dumps(value).encode()
    _write_head(writer, status, {"content-type": "application/json", "content-length": str(len(body))} | dict(extra or {}))
    writer.write(body)
    await writer.drain()


@asynccontextmanager
async def serving(port: int = 0) -> AsyncGenerator[ModelStub]:
    """A stub on loopback for as long as the block lasts."""
    stub = ModelStub()
    server = await asyncio.start_server(stub.serve, "127.0.0.1", port)
    stub.port = server.sockets[0].getsockname()[1]
    async with server:
        yield stub
        server.close()
