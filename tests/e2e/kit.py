"""A real stack for tests: ``runyard up`` as a child process, spoken to as a client would."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.contracts.runs import TERMINAL
from shared.sse import Frame, FrameReader

START_SECONDS = 60
STOP_SECONDS = 30
RUN_SECONDS = 60
UP = (sys.executable, "-m", "runyard.cli.main", "up")


def script(*steps: dict[str, Any]) -> str:
    """A prompt that the scripted engine carries out."""
    return json.dumps({"script": list(steps)})


@dataclass
class Stack:
    """A running local stack. ``facts`` is its ready file, read anew each time: pids change."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    state_dir: Path
    client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        facts = self.facts
        self.client = self.client_with(facts["apiKey"])

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def client_with(self, key: str | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.facts["apiUrl"], headers=headers, timeout=30, limits=limits, trust_env=False)

    def pid(self, service: str) -> int:
        return next(each["pid"] for each in self.facts["services"] if each["name"] == service)

    # ---- runs ----

    async def start(self, prompt: str, **request: Any) -> str:
        answer = await self.client.post("/api/runs/start", json={"provider": "scripted", "prompt": prompt, **request})
        assert answer.status_code == 202, answer.text
        return answer.json()["runId"]

    async def show(self, run_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/api/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        """The stored log, whole."""
        found: list[dict[str, Any]] = []
        after: str | None = "0"
        while after is not None:
            page = (await self.client.get(f"/api/runs/{run_id}/events", params={"after": after, "limit": 5000})).json()
            found += page["items"]
            after = page["nextCursor"]
        return found

    async def until(self, run_id: str, *statuses: str, within: float = RUN_SECONDS) -> dict[str, Any]:
        """The snapshot once the run has one of these statuses, or is over. Survives restarts of the server."""
        deadline = time.monotonic() + within
        shown: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            try:
                shown = await self.show(run_id)
            except (httpx.HTTPError, AssertionError):
                shown = None
            if shown is not None and shown["status"] in (statuses or TERMINAL):
                return shown
            assert shown is None or shown["status"] not in TERMINAL, f"over before {statuses}: {shown}"
            await asyncio.sleep(0.05)  # polling a condition with a bound
        status = shown and shown["status"]
        latest = [(event["at"], event["kind"], event["data"]) for event in (await self.events(run_id))[-5:]]
        printed = [await self.printed(run_id, stream) for stream in ("stdout", "stderr")]
        told = f"{run_id} is {status} after {within} s, not {statuses or 'over'}; its latest events: {latest}"
        raise AssertionError("\n".join([told, *printed]))

    async def printed(self, run_id: str, stream: str) -> str:
        """The end of what its engine printed within its first 64 KiB: what a run did that told no event."""
        answer = await self.client.get(f"/api/runs/{run_id}/logs/{stream}", params={"byteFrom": 0, "byteTo": 65_536})
        text = base64.b64decode(answer.json().get("base64", "")).decode("utf-8", "replace")
        return f"{stream}, {len(text)} characters, ends: {text[-3000:]}"

    async def reply(self, run_id: str, question_id: str, **reply: Any) -> httpx.Response:
        body = {"questionId": question_id, **reply}
        return await self.client.post(f"/api/runs/{run_id}/human-loop/reply", json=body)

    async def stop(self, run_id: str) -> httpx.Response:
        return await self.client.post(f"/api/runs/{run_id}/stop")

    async def question(self, run_id: str) -> dict[str, Any]:
        """The first open question, once the run waits for a reply."""
        return (await self.until(run_id, "waiting_user"))["pendingQuestions"][0]

    @asynccontextmanager
    async def stream(self, run_id: str, cursor: int | None = None, header: int | None = None) -> AsyncGenerator[Frames]:
        params = {"cursor": cursor} if cursor is not None else {}
        headers = {"last-event-id": str(header)} if header is not None else {}
        async with self.client.stream("GET", f"/api/runs/{run_id}/stream", params=params, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            yield Frames(response)

    async def followed(self, run_id: str, cursor: int | None = None, header: int | None = None) -> list[Frame]:
        async with self.stream(run_id, cursor, header) as frames:
            return [frame async for frame in frames]

    # ---- the invariant ----

    async def check(self, run_id: str) -> list[dict[str, Any]]:
        """Cursors dense from 1, one terminal event and nothing after it, every reader's list equal to the stored one."""
        events = await self.events(run_id)
        assert [event["cursor"] for event in events] == list(range(1, len(events) + 1))
        ends = [event["cursor"] for event in events if event["kind"] == "run.status" and event["data"]["status"] in TERMINAL]
        assert ends == [len(events)], f"terminal events at {ends} of {len(events)}"
        shown = await self.show(run_id)
        assert shown["status"] == events[-1]["data"]["status"]
        assert shown["lastCursor"] == len(events)
        frames = await self.followed(run_id)
        assert [int(frame.id) for frame in frames] == [event["cursor"] for event in events]
        assert no_process_of(run_id)
        return events


class Frames:
    """The frames of an open stream, as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Frame]:
        reader = FrameReader()
        async for block in self._response.aiter_bytes():
            for frame in reader.feed(block):
                yield frame


def processes_with(variable: str, value: str) -> list[int]:
    """Pids whose environment says ``variable=value…``."""
    wanted = f"{variable}={value}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if state != "Z" and any(line.startswith(wanted) for line in environ.split(b"\0")):
            found.append(int(entry.name))
    return found


def no_process_of(run_id: str, within: float = 5) -> bool:
    """No process carries the run's mark (its exit may be a moment ago)."""
    return soon(lambda: not processes_with("RUNYARD_RUN", f"{run_id}."), within)


async def gone(pid: int, within: float = 30) -> None:
    """Until the process has ended."""
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.002)  # polling a process's end
    assert not alive(pid), f"{pid} is still there after {within} s"


def soon(condition: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # polling a condition with a bound
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running_stack(
    state_dir: Path, *options: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = UP
) -> Generator[Stack]:
    """``runyard up`` until the block is left; then SIGTERM, and nothing may be left. ``program``: another one of its kind."""
    ready_file = state_dir.parent / f"{state_dir.name}.ready.json"
    ready_file.unlink(missing_ok=True)
    command = [
        *program, "--state-dir", str(state_dir), "--port", "0", "--ready-file", str(ready_file), *options,
    ]  # fmt: skip
    log = (state_dir.parent / f"{state_dir.name}.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    try:
        assert soon(lambda: ready_file.exists() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, Path(log.name).read_text()
        yield Stack(process, ready_file, state_dir)
    finally:
        log.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
