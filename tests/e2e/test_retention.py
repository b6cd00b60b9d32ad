"""A whole stack that lets a session go at its age: events, run, the files on its executor's disk and its snapshot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack, script

BOUND = 60
SETTINGS = {
    "RUNYARD_KEEP_EVENTS_DAYS": "1",
    "RUNYARD_KEEP_RUNS_DAYS": "3",
    "RUNYARD_RETENTION_SECONDS": "0.5",
}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    with make_folder() as folder:
        (folder / "snapshots").mkdir(mode=0o777)
        environment = {**SETTINGS, "EXECUTOR_SNAPSHOT_STORE": f"file://{folder / 'snapshots'}"}
        with running_stack(folder / "state", "--control-planes", "2", environment=environment) as made:
            async with made.client:
                yield made


async def days_pass(stack: Stack, run_id: str, days: int) -> None:
    connection = await asyncpg.connect(stack.facts["databaseUrl"])
    try:
        back = f"finished_at = finished_at - interval '{days} days'"
        async with connection.transaction():  # a sweep between the two would count the days twice
            await connection.execute(f"UPDATE agent_runs SET {back} WHERE id = $1", run_id)
            await connection.execute(f"UPDATE kept_runs SET {back} WHERE run_id = $1", run_id)
    finally:
        await connection.close()


def files_named(folder: Path, name: str) -> list[Path]:
    return [Path(at, name) for at, _folders, files in os.walk(folder) if name in files]  # folders may go meanwhile


async def test_what_is_past_its_age_goes_and_what_is_young_stays(stack: Stack) -> None:
    old = await stack.start(script({"write": {"path": "old.txt", "text": "x"}}, {"say": "1"}), sessionId="old")
    await stack.until(old)
    last = (await stack.show(old))["lastCursor"]
    assert files_named(stack.state_dir, "old.txt")
    snapshots = stack.state_dir.parent / "snapshots"
    kept = [path for path in snapshots.rglob("*") if path.is_file()]
    assert kept
    for path in kept:  # as old as its run
        os.utime(path, (0, 0))

    await days_pass(stack, old, 2)
    async with asyncio.timeout(BOUND):
        while len(events := await stack.events(old)) != 2:
            await asyncio.sleep(0.1)  # polling a condition with a bound
    assert [(each["kind"], each["cursor"]) for each in events] == [("stream.gap", last - 1), ("run.status", last)]
    assert events[0]["data"] == {"from": 1, "to": last - 1}
    assert [frame.event for frame in await stack.followed(old)] == [b"stream.gap", b"run.status"]
    young = await stack.start(script({"write": {"path": "young.txt", "text": "x"}}, {"say": "1"}), sessionId="young")
    await stack.until(young)

    await days_pass(stack, old, 2)
    async with asyncio.timeout(BOUND):
        while files_named(stack.state_dir, "old.txt") or any(path.exists() for path in kept):
            await asyncio.sleep(0.1)  # polling a condition with a bound
    assert (await stack.client.get(f"/api/runs/{old}")).status_code == 404
    assert files_named(stack.state_dir, "young.txt")
    await stack.check(young)
    again = await stack.start(script({"say": "here"}), sessionId="old")
    await stack.until(again, "success")
