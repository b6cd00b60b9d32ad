"""Runs as a benchmark needs them: made, claimed and started by the real stores; and events of a known size."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Move
from control_plane.domain.run import Lease, NewRun, Placement
from control_plane.storage.pool import make_pool, opened
from control_plane.storage.run_log import OnCommit, RunLog, Write
from control_plane.storage.runs import RunStore
from shared.contracts.events import RunStatusChanged
from shared.contracts.interactions import OnExpiry
from shared.contracts.providers import Provider
from shared.contracts.runs import RunStatus
from shared.ids import random_id

AT = datetime(2026, 1, 1, tzinfo=UTC)
PAYLOAD_BYTES = 300
LEASE_SECONDS = 600.0


def payload(size: int = PAYLOAD_BYTES) -> str:
    """The data of a ``message.delta`` of ``size`` bytes, of text an engine could say."""
    empty = json.dumps({"messageId": "msg_1", "text": ""}, separators=(",", ":"))
    words = "the quick brown fox said: «well, 42 lines» and went on; "
    text = (words * (size // len(words) + 1)).replace("«", "'").replace("»", "'")[: size - len(empty)]
    return json.dumps({"messageId": "msg_1", "text": text}, separators=(",", ":"))


def deltas(first: int, count: int, data: str) -> list[FromExecutor]:
    """Events of attempt 1 from executor cursor ``first`` on."""
    return [FromExecutor(first + index, 1, AT, "message.delta", data) for index in range(count)]


def new_run(run_id: str) -> NewRun:
    return NewRun(
        run_id=run_id, source="chat", source_ref=None, session_id=None, app_id=None, provider=Provider.SCRIPTED, model=None,
        priority=0, metadata={}, workspace_key=run_id, resume_session=None,
        request='{"provider":"scripted","prompt":"hello"}',
        first_event=RunStatusChanged(status=RunStatus.QUEUED, reason="created").wire_json(),
        interaction_ms=86_400_000, on_expiry=OnExpiry.FAIL,
    )  # fmt: skip


@asynccontextmanager
async def pool_of(dsn: str, size: int = 4) -> AsyncGenerator[asyncpg.Pool]:
    """As the control plane makes it."""
    pool = make_pool(dsn, size)
    async with opened(pool):
        yield pool


async def running_runs(pool: asyncpg.Pool, count: int, on_commit: Sequence[OnCommit] = ()) -> list[Lease]:
    """So many runs with an accepted attempt each, leased to us for ten minutes."""
    store, log = RunStore(pool), RunLog(pool, on_commit)
    for _ in range(count):
        await store.create(new_run(random_id("run")), None)
    leases = await store.claim(count, LEASE_SECONDS)
    assert len(leases) == count
    for lease in leases:
        await store.next_attempt(lease, Placement("executor-1", "instance-1", "http://127.0.0.1:1"))
        await log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
    return leases
