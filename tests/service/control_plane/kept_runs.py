"""Runs that ended some days ago, and a sweep over them. The clock is moved by data."""

from __future__ import annotations

import base64
import json
from typing import Any

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.retention import Keep
from control_plane.domain.run import Lease
from control_plane.manager_client import ManagerClient
from control_plane.runs.retain import Retain
from control_plane.storage.retention import RetentionStore
from control_plane.storage.run_log import Write
from tests.service.control_plane.conftest import PLACE, Stores, frame, new_run

ENDED = '{"outcome":"success","activeMs":1,"result":"done"}'
DAY = 86_400
ALL = Keep(output_days=1, events_days=2, runs_days=3)


class Kept:
    """What the tests of retention start from."""

    def __init__(self, stores: Stores, manager: ManagerClient) -> None:
        self.stores = stores
        self.store = RetentionStore(stores.pool)
        self._manager = manager

    async def sweep(self, keep: Keep) -> None:
        await Retain(self.store, self._manager, keep, sweep_every=60, pause=0, untouched=0)()

    async def run(self, *, messages: int = 3, output: bytes = b"out", days_ago: float = 0, **changes: Any) -> str:
        """One that succeeded. Its events: queued, running, the messages, session.started, attempt.ended, success."""
        lease = await self.living(**changes)
        log = json.dumps({"stream": "stdout", "byteFrom": 0, "base64": base64.b64encode(output).decode()})
        news = [frame(1, "log", log)] if output else []
        news += [frame(len(news) + number + 1, data=f'{{"text":"m{number}"}}') for number in range(messages)]
        session = frame(len(news) + 1, "session.started", f'{{"engineSession":"engine-{lease.run_id}"}}')
        news = [*news, session, frame(len(news) + 2, "attempt.ended", ENDED)]
        await self.stores.log.write([Write(lease.run_id, news, lease.token)])
        await self.age(lease.run_id, days_ago)
        return lease.run_id

    async def living(self, **changes: Any) -> Lease:
        run_id = await self.stores.runs.create(new_run(**changes), None)
        lease = next(lease for lease in await self.stores.runs.claim(100, 60) if lease.run_id == run_id)
        assert await self.stores.runs.next_attempt(lease, PLACE) == 1
        await self.stores.log.write([Write(run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])
        return lease

    async def age(self, run_id: str, days: float) -> None:
        """As if it had been made and ended so long before."""
        for table, *columns in (("agent_runs", "id", "finished_at", "created_at"), ("kept_runs", "run_id", "finished_at"),
                                ("attempts", "run_id", "created_at")):  # fmt: skip
            back = ", ".join(f"{each} = {each} - make_interval(secs => $2::float8)" for each in columns[1:])
            await self.stores.pool.execute(f"UPDATE {table} SET {back} WHERE {columns[0]} = $1", run_id, days * DAY)

    async def snapshot(self, run_id: str, workspace_key: str) -> None:
        """As if its attempt had left one."""
        await self.stores.pool.execute(
            "INSERT INTO workspace_snapshots "
            "(workspace_key, sha256, bytes, path, executor_id, run_id, attempt, executor_cursor, cursor) "
            "VALUES ($2, repeat('a', 64), 1, '/w', 'one', $1, 1, 1000, 1000)", run_id, workspace_key,
        )  # fmt: skip

    async def cursors(self, run_id: str) -> list[int]:
        rows = await self.stores.pool.fetch("SELECT cursor FROM run_events WHERE run_id = $1 ORDER BY cursor", run_id)
        return [row["cursor"] for row in rows]

    async def output(self, run_id: str) -> int:
        return await self.stores.pool.fetchval("SELECT count(*) FROM raw_output WHERE run_id = $1", run_id)

    async def exists(self, run_id: str) -> bool:
        return await self.stores.runs.head(run_id) is not None
