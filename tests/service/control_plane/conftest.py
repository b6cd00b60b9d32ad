"""The control plane's stores on a fresh database each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count

import asyncpg
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.recording import Change, FromExecutor, Move
from control_plane.domain.run import Lease, NewRun, Placement
from control_plane.storage.events import EventStore
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.pool import make_pool
from control_plane.storage.run_log import RunLog, Write
from control_plane.storage.runs import RunStore
from shared.clock import utc_now
from shared.contracts.interactions import OnExpiry
from shared.contracts.providers import Provider

PLACE = Placement("executor-1", "instance-1", "http://127.0.0.1:1")
_numbers = count(1)


def new_run(run_id: str | None = None, **changes: object) -> NewRun:
    base: dict[str, object] = {
        "run_id": run_id or f"run_{next(_numbers)}", "source": "chat", "source_ref": None, "session_id": None,
        "app_id": None, "provider": Provider.SCRIPTED, "model": None, "priority": 0, "metadata": {}, "workspace_key": "w",
        "resume_session": None, "request": '{"prompt":"hi"}', "first_event": '{"status":"queued"}',
        "interaction_ms": 60_000, "on_expiry": OnExpiry.FAIL,
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
        self.log = RunLog(self.pool, on_commit=self.committed.extend)

    async def started(self, run_id: str | None = None) -> Lease:
        """A run whose first attempt an executor has accepted."""
        made = await self.runs.create(new_run(run_id), None)
        lease = next(lease for lease in await self.runs.claim(100, 60) if lease.run_id == made)
        assert await self.runs.next_attempt(lease, PLACE) == 1
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
