"""An executor on a real socket inside the test's loop, or as the real pair of processes, and words to speak to either."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from executor.adapters.base import Adapter
from executor.app import ExecutorApp, build_app
from executor.processes import procfs
from executor.settings import ExecutorSettings
from executor.state_dir import MARK, StateDir
from shared.contracts.providers import Provider
from shared.http_protocol import BoundedHttpProtocol
from shared.server import _abortable
from shared.sse import Frame, FrameReader
from tests.service.executor.shell_engine import ShellAdapter

BOUND = 20.0
ROOT = Path(__file__).parents[3]

# By SIGKILL itself, or as a shell whose command got it a moment earlier says.
KILLED = (-9, 137)


@dataclass
class Wire:
    """HTTP to an executor."""

    http: httpx.AsyncClient

    async def start(self, script: str, run_id: str = "run_1", attempt: int = 1, **more: Any) -> httpx.Response:
        body = {"runId": run_id, "attempt": attempt, "provider": "scripted", "messages": [{"content": script}],
                "workspace": {"key": run_id}, **more}  # fmt: skip
        return await self.http.post("/provider-runs/start", json=body)

    async def begin(self, script: str, run_id: str = "run_1", attempt: int = 1, **more: Any) -> None:
        answer = await self.start(script, run_id, attempt, **more)
        assert answer.status_code == 201, answer.text

    async def show(self, run_id: str = "run_1") -> dict[str, Any]:
        return (await self.http.get(f"/provider-runs/{run_id}")).json()

    async def stop(self, run_id: str = "run_1") -> None:
        assert (await self.http.post(f"/provider-runs/{run_id}/stop")).status_code == 200

    async def frames(self, run_id: str = "run_1", cursor: int = 0, until: str | None = None) -> list[Frame]:
        """Everything of a stream, to its end or to the first event of kind ``until``."""
        found: list[Frame] = []
        reader = FrameReader()
        async with asyncio.timeout(BOUND):
            async with self.http.stream("GET", f"/provider-runs/{run_id}/stream", params={"cursor": cursor}) as answer:
                assert answer.status_code == 200, await answer.aread()
                async for chunk in answer.aiter_bytes():
                    found += reader.feed(chunk)
                    if until is not None and any(frame.event == until.encode() for frame in found):
                        return found
        return found

    async def events(self, run_id: str = "run_1", cursor: int = 0, until: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(frame.data) for frame in await self.frames(run_id, cursor, until)]

    async def ended(self, run_id: str = "run_1") -> dict[str, Any]:
        last = (await self.events(run_id))[-1]
        assert last["kind"] == "attempt.ended"
        return last["data"]

    async def said(self, word: str, run_id: str = "run_1") -> str:
        """The rest of the first message that begins with ``word``."""
        async with asyncio.timeout(BOUND):
            while True:
                page = await self.events(run_id, until="message.completed")
                for event in page:
                    if event["kind"] == "message.completed" and event["data"]["text"].startswith(word):
                        return event["data"]["text"].removeprefix(word).strip()
                if page and page[-1]["kind"] == "attempt.ended":
                    raise AssertionError(page)
                await asyncio.sleep(0.02)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        with nullcontext():
            yield


@dataclass
class Inside(Wire):
    app: ExecutorApp


@asynccontextmanager
async def executor_inside(state: Path, adapter: Adapter | None = None, **settings: Any) -> AsyncGenerator[Inside]:
    """An executor in this process, with the shell engine."""
    adapters = {Provider.SCRIPTED: adapter or ShellAdapter(questions=True, resume=True, messages=True)}
    app = build_app(ExecutorSettings.model_validate({"state_dir": state, "auth": "off", **settings}), adapters=adapters)
    config = uvicorn.Config(
        _abortable(app), host="127.0.0.1", port=0, http=BoundedHttpProtocol, log_config=None, lifespan="on",
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started or serving.done())
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND) as http:
            yield Inside(http, app)
    finally:
        app.asked_to_end(signal.SIGINT)
        server.should_exit = True
        await serving


async def until(is_so: Callable[[], object], bound: float = BOUND) -> None:
    async with asyncio.timeout(bound):
        while not is_so():
            await asyncio.sleep(0.01)


def wait_until(is_so: Callable[[], object], bound: float = BOUND) -> None:
    deadline = time.monotonic() + bound
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def suspend(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """A machine that wakes: of its clocks only the one that counts since its start has moved."""
    read = time.clock_gettime_ns

    def woken(clock: int) -> int:
        return read(clock) + (seconds * 1_000_000_000 if clock == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr(time, "clock_gettime_ns", woken)


def is_running(pid: int) -> bool:
    process = procfs.read_process(pid)
    return process is not None and process.is_alive


def is_quiet(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Outside(Wire):
    """The real thing: the guard and the executor it started."""

    guard: subprocess.Popen[bytes]
    state: StateDir

    @property
    def pid(self) -> int:
        return int(self.state.pid.read_text())

    async def ready(self) -> None:
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    if (await self.http.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    assert self.guard.poll() is None, "the guard ended"
                await asyncio.sleep(0.02)

    def marked(self) -> list[int]:
        return [pid for pid, each in procfs.snapshot().items() if each.is_alive and procfs.variable(pid, MARK) == self.state.mark]


@asynccontextmanager
async def executor_outside(
    state: Path, *, is_ready: bool = True, wrapper: Sequence[str] = (), **env: str
) -> AsyncGenerator[Outside]:
    """``python -m executor`` with the scripted engine. Whatever happened, nothing of it is left afterwards."""
    port = free_port()
    guard = subprocess.Popen(  # noqa: ASYNC220  it must be this process's child, and is waited for in a thread
        [*wrapper, sys.executable, "-m", "executor"],
        cwd=ROOT,
        env={**os.environ, "EXECUTOR_STATE_DIR": str(state), "EXECUTOR_PORT": str(port), "RUNYARD_AUTH": "off", **env},
        stdin=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND) as http:
            outside = Outside(http, guard, StateDir.at(state))
            if is_ready:
                await outside.ready()
            yield outside
    finally:
        if guard.poll() is None:
            guard.send_signal(signal.SIGCONT)
            guard.send_signal(signal.SIGINT)
        await asyncio.to_thread(guard.wait, BOUND)
