"""Where a case is played: the real guard and executor, over HTTP, with the pinned engines and a model stub.

``Ground`` starts attempts of one engine in one workspace and keeps them on their leash; ``Attempt`` is one of them, spoken to as
the control plane does. Every wait is bounded by ``BOUND``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from executor.adapters import ADAPTERS
from shared.contracts.providers import Capabilities
from shared.sse import FrameReader
from tests.conformance.engines import ENGINES, Engine
from tests.conformance.seen import Data, Seen
from tests.e2e.kit import processes_with, soon
from tests.model_stub.server import ModelStub
from tests.service.executor.kit import free_port

# An engine that asks a failing model again without a word is ended for its silence after two minutes.
BOUND = 180.0
START_SECONDS = 30
RENEW_SECONDS = 2.0
ROOT = Path(__file__).parents[2]
ENGINES_DIR = ROOT / "engines"
LOG_BLOCK = 1 << 20

# What the executor knows and an engine must not: its own token, what it was started with, the keys of other engines.
TOKEN = "token-of-the-service-0123456789abcdef"
OF_THE_SERVICE = {
    "RUNYARD_SERVICE_TOKEN": TOKEN,
    "DATABASE_URL": "postgres://runyard:password-of-the-database-0123@127.0.0.1:1/runyard",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-operators-shell-0123456789",
}
KEYS = {each.key: f"sk-never-shown-{each.key.lower()}-0123456789" for each in ENGINES.values() if each.key}


@dataclass(frozen=True)
class Executor:
    """A running executor: where it is, and the file its words go to."""

    url: str
    log: Path

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=BOUND, trust_env=False)


@contextmanager
def executor_at(folder: Path) -> Generator[Executor]:
    """``python -m executor`` with the pinned engines and a key for each. Nothing of it is left afterwards."""
    port, log = free_port(), folder / "executor.log"
    own = {
        "EXECUTOR_STATE_DIR": str(folder / "state"), "EXECUTOR_PORT": str(port), "EXECUTOR_ENGINES_DIR": str(ENGINES_DIR),
        "EXECUTOR_SLOTS": "4",
    }  # fmt: skip
    with log.open("wb") as output:
        guard = subprocess.Popen(
            [sys.executable, "-m", "executor"], cwd=ROOT, env={**os.environ, **OF_THE_SERVICE, **KEYS, **own},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            executor = Executor(f"http://127.0.0.1:{port}", log)
            assert soon(lambda: guard.poll() is not None or _is_ready(executor.url), START_SECONDS)
            assert guard.poll() is None, log.read_text()
            yield executor
        finally:
            guard.send_signal(signal.SIGINT)  # at once, whatever still works there
            guard.wait(START_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Ground:
    """One engine's place for one case. ``told`` is everything a caller was shown so far, to be searched for secrets."""

    engine: Engine
    http: httpx.AsyncClient
    stub: ModelStub
    key: str = field(default_factory=lambda: f"conformance-{uuid4().hex[:12]}")
    attempts: list[Attempt] = field(default_factory=list["Attempt"])
    told: list[bytes] = field(default_factory=list[bytes])

    @property
    def can(self) -> Capabilities:
        return ADAPTERS[self.engine.provider].capabilities

    async def ask(self, prompt: str, **more: Any) -> httpx.Response:
        """The executor's answer to a start, whatever it is."""
        run_id = f"run-{uuid4().hex[:16]}"
        options = {"baseUrl": self.stub.base_url} if self.engine.speaks == "marker" else {}
        body = {
            "runId": run_id, "provider": self.engine.provider, "messages": [{"content": prompt}],
            "workspace": {"key": self.key}, "providerOptions": options | more.pop("options", {}),
        }  # fmt: skip
        body |= {"model": self.engine.model} if self.engine.model else {}
        answer = await self.http.post("/provider-runs/start", json=body | more)
        self.told.append(answer.content)
        if answer.is_success:
            self.attempts.append(Attempt(self, run_id))
        return answer

    async def start(self, prompt: str, **more: Any) -> Attempt:
        answer = await self.ask(prompt, **more)
        assert answer.status_code == 201, answer.text
        attempt = self.attempts[-1]
        await attempt.look_at_environment()
        return attempt

    async def keep_on_leash(self) -> None:
        """Renews every attempt as a driver does, until canceled."""
        while True:
            state = (await self.http.get("/executor")).json()
            quote = {name: state[name] for name in ("instance", "clockMs")}
            refs = [{"runId": each.run_id, "attempt": 1} for each in self.attempts]
            await self.http.post("/provider-runs/renew", json={"quote": quote, "attempts": refs})
            await asyncio.sleep(RENEW_SECONDS)  # a driver's own pace

    def asked(self) -> str:
        """The newest request the model got, without the engine's own side requests."""
        return str([each["body"] for each in self.stub.requests if "tools" in each["body"]][-1])


@dataclass
class Attempt:
    """One attempt at the executor. ``environments``: of its processes, as they were just after its start."""

    ground: Ground
    run_id: str
    environments: list[bytes] = field(default_factory=list[bytes])

    @property
    def pids(self) -> list[int]:
        return processes_with("RUNYARD_RUN", f"{self.run_id}.")

    async def look_at_environment(self) -> None:
        """Once its process is there; an attempt may have ended before anybody looked."""
        async with asyncio.timeout(BOUND):
            while not self.environments and (await self.show())["status"] != "ended":
                self.environments = [found for pid in self.pids if (found := _environment(pid))]
                await asyncio.sleep(0.02)  # polling a condition with a bound

    async def show(self) -> Data:
        answer = await self.ground.http.get(f"/provider-runs/{self.run_id}")
        self.ground.told.append(answer.content)
        return answer.json()

    async def first(self, kind: str, number: int = 1) -> Data:
        """The data of the first (second, …) event of this kind, past or to come."""
        found = 0
        async for event in self._events():
            found += event["kind"] == kind
            if found == number:
                return event["data"]
        raise AssertionError(f"it ended without {kind} {number}: {self._last}")

    async def ended(self) -> Seen:
        """How it ended, and everything it showed."""
        return Seen.of_attempt([event async for event in self._events()])

    async def seconds_in_session(self) -> float:
        """From its session to its end, or from its start where it had none: how long a process starts is the machine's doing."""
        told = [(event["kind"], event["at"]) async for event in self._events() if event["kind"] != "log"]
        began = next((at for kind, at in told if kind == "session.started"), told[0][1])
        return (datetime.fromisoformat(told[-1][1]) - datetime.fromisoformat(began)).total_seconds()

    async def reply(self, question_id: str, **reply: Any) -> None:
        answer = await self.call("human-loop/reply", {"questionId": question_id, **reply})
        assert answer.status_code == 200, answer.text

    async def say(self, text: str) -> httpx.Response:
        return await self.call("messages", {"messageId": uuid4().hex, "text": text})

    async def stop(self) -> None:
        assert (await self.call("stop")).status_code == 200

    async def call(self, what: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        answer = await self.ground.http.post(f"/provider-runs/{self.run_id}/{what}", json=body)
        self.ground.told.append(answer.content)
        return answer

    def kill(self) -> None:
        """SIGKILL to every process of the attempt."""
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    async def log(self, stream: str) -> bytes:
        """The whole raw output, by ranges."""
        found = b""
        while True:
            params = {"byteFrom": len(found), "byteTo": len(found) + LOG_BLOCK}
            part = (await self.ground.http.get(f"/provider-runs/{self.run_id}/logs/{stream}", params=params)).json()
            piece = base64.b64decode(part.get("base64") or "")
            found += piece
            if not piece or len(found) >= part["totalBytes"]:
                return found

    async def file(self, path: str) -> bytes | None:
        """A file it left in its workspace; None where there is none."""
        answer = await self.ground.http.get(f"/provider-runs/{self.run_id}/files/{path}")
        return answer.content if answer.status_code == 200 else None

    async def _events(self) -> AsyncGenerator[Data]:
        reader, self._last = FrameReader(), None
        async with asyncio.timeout(BOUND):
            async with self.ground.http.stream("GET", f"/provider-runs/{self.run_id}/stream") as answer:
                assert answer.status_code == 200, await answer.aread()
                async for chunk in answer.aiter_bytes():
                    for frame in reader.feed(chunk):
                        self._last = frame.data
                        if frame.event != b"log":
                            self.ground.told.append(frame.data)
                        yield json.loads(frame.data)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@asynccontextmanager
async def ground_for(engine: Engine, executor: Executor, stub: ModelStub) -> AsyncGenerator[Ground]:
    """Attempts that a case left living are stopped at its end."""
    async with executor.client() as http:
        ground = Ground(engine, http, stub)
        leash = asyncio.create_task(ground.keep_on_leash())
        try:
            yield ground
        finally:
            leash.cancel()
            await asyncio.wait([leash])
            for attempt in ground.attempts:
                await http.post(f"/provider-runs/{attempt.run_id}/stop")
