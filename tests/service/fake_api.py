"""A control plane's ``/api`` as far as a client needs one, on a real socket; runs are lists of events. Not a test.

- ``cut_after``: every connection to a stream is cut after that many frames; ``closes``: it ends in an orderly way instead.
- ``sends_away``: that orderly end comes with a word to come back soon.
- ``mute_after``: the first connection says nothing more after that many frames, and stays open.
- ``overlap``: every connection begins that many events before what its reader asked for.
- ``refuse``: paths that are answered with a problem, ``refusals`` times in all.
- ``held_until_reply``: this cursor and what comes after it are told only once a reply or a stop came in.
- ``gates``: a cursor and what comes after it are told only once its gate is open.
- ``answers``: what is said to a path with its query, instead of what is said to the path.
- ``silent``: paths that are heard and never answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
AT = "2026-01-01T00:00:00Z"
KEY = "ry_test_key"
SNAPSHOT: Json = {"attempt": 1, "source": "chat", "provider": "scripted", "createdAt": AT, "pendingQuestions": []}

READINESS: Json = {"ready": True, "database": {"ready": True}, "manager": {"ready": True}, "executors": [], "providers": []}
RAW: Json = {
    "runId": "run_1", "attempt": 1, "stream": "stdout", "byteFrom": 0, "byteTo": 11, "totalBytes": 11, "text": "raw output\n",
    "base64": "cmF3IG91dHB1dAo=",
}  # fmt: skip


def event(cursor: int, kind: str, **data: Any) -> Json:
    return {"cursor": cursor, "runId": "run_1", "attempt": 1, "at": AT, "kind": kind, "data": data}


def ending(cursor: int, status: str, **data: Any) -> Json:
    return event(cursor, "run.status", status=status, **data)


@dataclass
class FakeApi:
    """``requests`` is everything it was asked, in order: (method, path, headers, body)."""

    events: list[Json] = field(default_factory=list[Json])
    cut_after: int | None = None
    closes: bool = False
    sends_away: bool = False
    mute_after: int | None = None
    overlap: int = 0
    heartbeats: int = 0
    refuse: dict[str, tuple[int, Json]] = field(default_factory=dict[str, tuple[int, Json]])
    refusals: int = 1_000_000
    pending: list[Json] = field(default_factory=list[Json])
    held_until_reply: int | None = None
    gates: dict[int, asyncio.Event] = field(default_factory=dict[int, asyncio.Event])
    answers: dict[str, Json] = field(default_factory=dict[str, Json])
    silent: set[str] = field(default_factory=set[str])
    requests: list[tuple[str, str, dict[str, str], Json]] = field(default_factory=list[tuple[str, str, dict[str, str], Json]])
    url: str = ""
    _replied: asyncio.Event = field(default_factory=asyncio.Event)
    _answering: set[asyncio.Task[Any]] = field(
        default_factory=set[asyncio.Task[Any]]
    )  # nobody else holds a connection that waits

    def asked(self, path: str) -> list[tuple[str, str, dict[str, str], Json]]:
        return [each for each in self.requests if each[1].partition("?")[0] == path]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            while (head := await _head(reader)) is not None:
                method, path, headers = head
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
                self.requests.append((method, path, headers, body))
                if path in self.answers:
                    await _send(writer, 200, self.answers[path])
                elif not await self._respond(writer, method, path.partition("?")[0], headers):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._answering.discard(task)
            writer.close()

    async def hang_up(self) -> None:
        """End every connection."""
        answering = list(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering)

    async def _respond(self, writer: asyncio.StreamWriter, method: str, path: str, headers: dict[str, str]) -> bool:
        if path in self.silent:
            await asyncio.Event().wait()
        if path in self.refuse and self.refusals > 0:
            self.refusals -= 1
            status, problem = self.refuse[path]
            return await _send(writer, status, problem)
        if headers.get("authorization") != f"Bearer {KEY}":
            return await _send(writer, 401, {"code": "unauthorized", "detail": "no valid key", "hint": "send one"})
        if path.endswith("/stream"):
            return await self._stream(writer, int(headers.get("last-event-id", 0)) - self.overlap)
        if path.endswith(("/human-loop/reply", "/stop")):
            self._replied.set()
        return await _send(writer, 202 if path.endswith("/start") else 200, self._json(path))

    def _json(self, path: str) -> Json:
        last = self.events[-1] if self.events else event(0, "none")
        status = last["data"]["status"] if last["kind"] == "run.status" else "running"
        snapshot = {
            **SNAPSHOT,
            "runId": "run_1",
            "status": status,
            "lastCursor": last["cursor"],
            "pendingQuestions": self.pending,
        }
        answers: dict[str, Json] = {
            "/api/runs/start": {"runId": "run_1", "accepted": True, "warnings": [], "status": "queued", "links": {}},
            "/api/runs": {"items": [snapshot], "nextCursor": None},
            "/api/human-loop/pending": {"items": self.pending, "nextCursor": None},
            "/api/runs/run_1/human-loop/reply": {"runId": "run_1", "status": "answered", "duplicate": False},
            "/api/runs/run_1/logs/stdout": RAW,
            "/api/system/readiness": READINESS,
            "/api/runs/run_1/stop": {"runId": "run_1", "status": "stopping"},
        }
        return answers.get(path, snapshot)

    async def _stream(self, writer: asyncio.StreamWriter, after: int) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await _chunk(writer, b"retry: 10\n\n")
        sent = 0
        for each in self.events:
            if each["cursor"] <= after:
                continue
            if self.cut_after is not None and sent >= self.cut_after:
                if self.sends_away:
                    await _chunk(writer, b": about to end\nretry: 1\n\n")
                if self.closes:
                    writer.write(b"0\r\n\r\n")
                return False
            if self.mute_after == sent:
                self.mute_after = None
                await asyncio.Event().wait()
            await self._may_be_told(each["cursor"])
            frame = f"id: {each['cursor']}\nevent: {each['kind']}\ndata: {json.dumps(each, ensure_ascii=False)}\n\n"
            await _chunk(writer, frame.encode() + b": hb\n\n" * self.heartbeats)
            sent += 1
        writer.write(b"0\r\n\r\n")
        return True

    async def _may_be_told(self, cursor: int) -> None:
        if self.held_until_reply == cursor:
            await self._replied.wait()
        if cursor in self.gates:
            await self.gates[cursor].wait()


async def _head(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = lines[0].split(" ")
    pairs = (line.partition(": ") for line in lines[1:] if line)
    return method, path, {name.lower(): value for name, _, value in pairs}


async def _send(writer: asyncio.StreamWriter, status: int, content: Json) -> bool:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


@asynccontextmanager
async def serving(api: FakeApi) -> AsyncGenerator[FakeApi]:
    server = await asyncio.start_server(api.answer, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()
        await api.hang_up()
