"""The control plane's stores on a fresh database each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from control_plane.app import build_app
from control_plane.domain.bounds import Bounds
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Move
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease, NewRun, Placement
from control_plane.manager_client import ManagerClient
from control_plane.settings import Settings
from control_plane.storage.events import EventStore
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.pool import make_pool
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.runs import RunStore
from shared.clock import utc_now
from shared.contracts.interactions import OnExpiry
from shared.contracts.providers import Provider
from shared.server import Stopping
from tests.loopback import serving
from tests.service.control_plane.fake_manager import FakeManager

PLACE = Placement("executor-1", "instance-1", "http://127.0.0.1:1")
_numbers = count(1)


def new_run(run_id: str | None = None, **changes: object) -> NewRun:
    """``changes`` say otherwise than: without a session, in a workspace of its own; with one, in that of the session."""
    run_id = run_id or f"run_{next(_numbers)}"
    session = changes.get("session_id")
    base: dict[str, object] = {
        "run_id": run_id, "source": "chat", "source_ref": None, "session_id": None,
        "app_id": None, "provider": Provider.SCRIPTED, "model": None, "priority": 0, "metadata": {},
        "workspace_key": f"ses_{changes.get('app_id')}_{session}" if session else run_id, "resume_session": None,
        "request": '{"prompt":"hi"}', "first_event": '{"status":"queued"}', "interaction_ms": 60_000, "on_expiry": OnExpiry.FAIL,
    }  # fmt: skip
    return NewRun(**{**base, **changes})  # type: ignore[arg-type]


def frame(cursor: int, kind: str = "message.completed", data: str = '{"text":"hi"}', attempt: int = 1) -> FromExecutor:
    return FromExecutor(executor_cursor=cursor, attempt=attempt, at=utc_now(), kind=kind, data=data)


@dataclass
class Stores:
    """All stores of one replica, and what its log committed."""

    pool: asyncpg.Pool
    committed: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runs = RunStore(self.pool)
        self.events = EventStore(self.pool)
        self.interactions = InteractionStore(self.pool)
        self.log = RunLog(self.pool, on_commit=[self.committed.extend])

    async def started(self, run_id: str | None = None, place: Placement = PLACE) -> Lease:
        """A run whose first attempt an executor has accepted."""
        made = await self.runs.create(new_run(run_id), None)
        lease = next(lease for lease in await self.runs.claim(100, 60) if lease.run_id == made)
        assert await self.runs.next_attempt(lease, place) == 1
        await self.log.write([Write(made, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
        return lease

    async def kinds(self, run_id: str) -> list[str]:
        return [event.kind for event in await self.events.page(run_id, 0, 1000)]


@pytest.fixture
async def stores(database: str) -> AsyncIterator[Stores]:
    async with make_pool(database) as pool:
        yield Stores(pool)


@pytest.fixture
async def another_replica(database: str) -> AsyncIterator[Callable[[], Stores]]:
    async with make_pool(database) as pool:
        yield lambda: Stores(pool)


async def soon(is_so: Callable[[], Awaitable[object]], within: float = 20) -> None:
    """Ask until it is so. Raises ``TimeoutError`` when it never becomes so."""
    async with asyncio.timeout(within):
        while not await is_so():
            await asyncio.sleep(0.01)  # polling a condition with a bound


async def blocked(stores: Stores, sessions: int) -> None:
    """Until so many sessions of this database wait for a lock."""
    waiting = "SELECT count(*) >= $1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await soon(lambda: stores.pool.fetchval(waiting, sessions))


@asynccontextmanager
async def running(*loops: Awaitable[None]) -> AsyncGenerator[None]:
    """They run meanwhile, and have ended afterwards."""
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---- a whole control plane, in front of a scripted manager ----

QUICK = Bounds(
    lease=1.5, renew_every=0.3, sweep_every=0.2, heartbeat=0.2, silence=0.6, probe=0.5, leash=2.2, leash_margin=0.2, renewal=0.7,
    attach=0.3, call=1.0, reconnect=0.05,
)  # fmt: skip


class Key(NamedTuple):
    """``headers`` show it."""

    id: str
    headers: dict[str, str]


@dataclass
class Replica:
    """A control plane that serves at ``url``, spoken to as an operator."""

    url: str
    http: httpx.AsyncClient

    async def start(self, **request: Any) -> str:
        answer = await self.http.post("/api/runs/start", json={"provider": "scripted", "prompt": "hi", **request})
        assert answer.status_code == 202, answer.text
        return answer.json()["runId"]

    async def key(self, app_id: str | None, *scopes: str, name: str = "n") -> Key:
        answer = await self.http.post("/api/keys", json={"appId": app_id, "name": name, "scopes": scopes})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return Key(made["keyId"], {"authorization": f"Bearer {made['key']}"})

    async def show(self, run_id: str) -> dict[str, Any]:
        return (await self.http.get(f"/api/runs/{run_id}")).json()

    async def until(self, run_id: str, *statuses: str, within: float = 20) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while (shown := await self.show(run_id))["status"] not in statuses:
                await asyncio.sleep(0.02)  # polling a condition with a bound
        return shown

    async def until_so(self, run_id: str, is_so: Callable[[dict[str, Any]], bool], within: float = 20) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while not is_so(shown := await self.show(run_id)):
                await asyncio.sleep(0.02)  # polling a condition with a bound
        return shown

    async def phase(self, run_id: str, phase: str, within: float = 20) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while (shown := await self.show(run_id))["phase"] != phase:
                await asyncio.sleep(0.02)  # polling a condition with a bound
        return shown

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        return (await self.http.get(f"/api/runs/{run_id}/events", params={"limit": 5000})).json()["items"]

    async def kinds(self, run_id: str) -> list[str]:
        return [each["kind"] for each in await self.events(run_id)]

    async def reply(self, run_id: str, question_id: str, **reply: Any) -> httpx.Response:
        return await self.http.post(f"/api/runs/{run_id}/human-loop/reply", json={"questionId": question_id, **reply})

    async def stop(self, run_id: str) -> httpx.Response:
        return await self.http.post(f"/api/runs/{run_id}/stop")


@asynccontextmanager
async def replica_at(
    database: str, *managers: str, stopping: Stopping | None = None, bounds: Bounds = QUICK, **settings: Any
) -> AsyncGenerator[Replica]:
    given = Settings(
        database_url=SecretStr(database), manager_urls=list(managers), admin_key=SecretStr("admin"),
        service_token=SecretStr("service"), **settings,
    )  # fmt: skip
    async with serving(build_app(given, stopping=stopping, bounds=bounds, chance=lambda: 0.0)) as url:
        headers = {"authorization": "Bearer admin"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
            yield Replica(url, http)


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def manager_url(manager: FakeManager) -> AsyncIterator[str]:
    async with serving(manager.app()) as url:
        yield url


@pytest.fixture
async def replica(database: str, manager_url: str) -> AsyncIterator[Replica]:
    async with replica_at(database, manager_url) as made:
        yield made


@pytest.fixture
async def manager_client(manager_url: str) -> AsyncIterator[ManagerClient]:
    client = ManagerClient([manager_url], "service", 2.0)
    yield client
    await client.close()
