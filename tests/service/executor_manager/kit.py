"""The manager as a real process, spoken to as the control plane does. Not a test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from shared.upstream import Upstream, open_stream
from tests.loopback import BOUND_SECONDS

ROOT = Path(__file__).parents[3]
RUNS = "/api/provider-runs"
MANAGER = (sys.executable, "-m", "executor_manager")


@dataclass
class Manager:
    process: subprocess.Popen[bytes]
    http: httpx.AsyncClient
    url: str

    async def propose(self, workspace: str = "w", **more: Any) -> httpx.Response:
        asked = {"provider": "scripted", "workspace": {"key": workspace}, **more}
        return await self.http.post(f"{RUNS}/propose", json=asked)

    async def start(self, run_id: str, prompt: str) -> str:
        """Propose and start as a driver does; the executor's id."""
        proposal = (await self.propose(run_id)).raise_for_status().json()
        await self.start_at(proposal["executorId"], run_id, prompt)
        return str(proposal["executorId"])

    async def start_at(self, executor_id: str, run_id: str, prompt: str) -> None:
        body = {"provider": "scripted", "workspace": {"key": run_id}, "runId": run_id, "messages": [{"content": prompt}]}
        answer = await self.http.post(f"{RUNS}/start", params={"executor": executor_id}, json=body)
        assert answer.status_code == 201, answer.text

    async def offers_a_place(self) -> bool:
        answer = await self.propose()
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    async def follow(self, run_id: str, executor_id: str, cursor: int = 0) -> Upstream:
        address = f"{self.url}{RUNS}/{run_id}/stream?executor={executor_id}&attempt=1"
        headers = {name: value for name, value in self.http.headers.items() if name == "authorization"}
        return await open_stream(address, {**headers, "last-event-id": str(cursor)}, 5.0)

    async def fleet(self) -> list[dict[str, Any]]:
        return (await self.http.get("/api/executors")).raise_for_status().json()["items"]


@asynccontextmanager
async def manager_process(
    executors: str, port: int, command: Sequence[str] = MANAGER, **environment: str
) -> AsyncGenerator[Manager]:
    """A manager that is ready. Ended afterwards, however the block was left."""
    given = {"EXECUTOR_MANAGER_PORT": str(port), "EXECUTOR_MANAGER_EXECUTORS": executors, "RUNYARD_AUTH": "off", **environment}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **given})  # noqa: ASYNC220  quick
    try:
        url = f"http://127.0.0.1:{port}"
        token = environment.get("RUNYARD_SERVICE_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=BOUND_SECONDS, trust_env=False) as http:
            async with asyncio.timeout(BOUND_SECONDS):
                while not await _is_ready(http):
                    assert process.poll() is None, "the manager ended"
                    await asyncio.sleep(0.02)  # polls readiness, bounded above
            yield Manager(process, http, url)
    finally:
        if process.poll() is None:
            process.terminate()
        await asyncio.to_thread(process.wait, BOUND_SECONDS)


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def refused_to_start(**environment: str) -> str:
    """What a manager says on stderr that ends at once with status 1."""
    ended = subprocess.run(
        MANAGER, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr
