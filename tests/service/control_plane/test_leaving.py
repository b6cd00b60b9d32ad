"""A replica that is told to end: its runs are another one's at once, and its readers are told to come back."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move, News
from control_plane.domain.recording import Change
from control_plane.domain.run import Lease
from control_plane.runs import dispatch, room
from control_plane.runs.record import Recorder
from shared.server import Stopping
from shared.sse import FrameReader
from tests.loopback import until
from tests.service.control_plane.conftest import QUICK, Replica, Stores, blocked, replica_at, soon
from tests.service.control_plane.fake_manager import FakeExecutor, FakeManager

COME_BACK = re.compile(rb": [^\n]+\nretry: (\d+)\n\n\Z")


@pytest.mark.parametrize("path", ["/api/runs/{}/stream", "/api/runs/{}/stream?view=workbench", "start"])
async def test_a_stream_of_a_replica_that_is_told_to_end_says_so_and_ends_in_order(
    database: str, manager: FakeManager, manager_url: str, path: str
) -> None:
    stopping = Stopping()
    async with replica_at(database, manager_url, stopping=stopping) as one:
        run_id = await one.start()
        attempt = await manager.begun(run_id)
        await one.until(run_id, "running")
        whole, seen = b"", asyncio.Event()

        async def read() -> None:
            nonlocal whole
            async with stream_of(one, path, run_id) as answer:
                async for block in answer.aiter_bytes():  # raises where the answer was cut
                    whole += block
                    seen.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(seen.wait(), 20)
        stopping.begin(signal.SIGTERM)
        await asyncio.wait_for(reading, 20)
        attempt.end()
    said = COME_BACK.search(whole)
    assert said is not None, whole[-200:]
    assert 0 < int(said[1]) < 1000, "sooner than after a cut"
    assert all(frame.data for frame in FrameReader().feed(whole)), "and no reader takes it for an event"


def stream_of(replica: Replica, path: str, run_id: str):
    if path == "start":
        body, headers = {"provider": "scripted", "prompt": "hi"}, {"accept": "text/event-stream"}
        return replica.http.stream("POST", "/api/runs/start", json=body, headers=headers)
    return replica.http.stream("GET", path.format(run_id))


async def test_who_waits_for_a_run_at_a_replica_that_is_told_to_end_learns_how_far_it_has_come(
    database: str, manager: FakeManager, manager_url: str
) -> None:
    stopping = Stopping()
    async with replica_at(database, manager_url, stopping=stopping) as one:
        body = {"provider": "scripted", "prompt": "hi", "metadata": {"who": "waits"}}
        waiting = asyncio.create_task(one.http.post("/api/runs/start", params={"wait": 300}, json=body))
        async with asyncio.timeout(20):
            while not (runs := (await one.http.get("/api/runs", params={"status": "running"})).json()["items"]):
                await asyncio.sleep(0.02)  # polling a condition with a bound
        stopping.begin(signal.SIGTERM)
        answer: httpx.Response = await asyncio.wait_for(waiting, 20)
    told = answer.json()
    assert (answer.status_code, told["runId"], told["status"]) == (200, runs[0]["runId"], "running")
    assert told["events"], "with all it has said so far"


async def test_a_replica_that_is_told_to_end_hands_its_runs_over_before_it_has_ended(
    database: str, manager: FakeManager, manager_url: str, stores: Stores
) -> None:
    """Whatever connection is still open there; and what it claims in that moment it gives back."""
    stopping = Stopping()
    async with replica_at(database, manager_url, stopping=stopping) as one:
        runs = [await one.start() for _ in range(5)]
        attempts = [await manager.begun(run_id) for run_id in runs]
        for run_id in runs:
            await one.until(run_id, "running")
        stopping.begin(signal.SIGTERM)
        await soon(lambda: stores.pool.fetchval("SELECT count(*) = 0 FROM run_heads WHERE lease_token IS NOT NULL"))
        late = await one.start()
        assert (await one.http.get("/readyz")).status_code == 503
        assert (await one.show(late))["status"] == "queued", "whoever still comes is served, and its run left to others"
        async with replica_at(database, manager_url) as two:
            for run_id, attempt in zip(runs, attempts, strict=True):
                attempt.end()
                await two.until(run_id, "success")
                assert manager.attempts(run_id) == [attempt], "one attempt, attended by two replicas"
            (await manager.begun(late)).end()
            await two.until(late, "success")


async def test_a_replica_hands_its_runs_over_however_long_the_database_takes_while_it_ends(
    database: str, manager: FakeManager, manager_url: str, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal tells it to let go, and so does the end of its server: what goes on at the second word is not broken off."""
    monkeypatch.setattr(dispatch, "HAND_BACK_SECONDS", 20.0)
    stopping = Stopping()
    async with AsyncExitStack() as ends:
        one = await ends.enter_async_context(replica_at(database, manager_url, stopping=stopping))
        runs = [await one.start() for _ in range(5)]
        for run_id in runs:
            await manager.begun(run_id)
            await one.until(run_id, "running")
        async with stores.pool.acquire() as slow, slow.transaction():
            await slow.execute("SELECT FROM run_heads FOR UPDATE")
            stopping.begin(signal.SIGTERM)
            await blocked(stores, 1)
            ending = asyncio.create_task(ends.aclose())
            await asyncio.wait((ending,), timeout=1)
            assert not ending.done(), "it waits for those who take the runs over"
        await asyncio.wait_for(ending, 20)
    assert await stores.pool.fetchval("SELECT count(*) FROM run_heads WHERE lease_token IS NULL") == 5


async def test_an_attempt_whose_start_had_to_be_repeated_is_renewed_before_anything_else(
    database: str, manager: FakeManager, manager_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been on its leash since the first start, which another replica made before it had to leave."""
    renewed_before: list[bool] = []
    record = Recorder.record

    async def seen(self: Recorder, lease: Lease, news: Sequence[News]) -> Change:
        if Move(Signal.ATTEMPT_ACCEPTED) in news:
            named = [each for one in manager.executors.values() for call in one.renewals for each in call["attempts"]]
            renewed_before.append({"runId": lease.run_id, "attempt": 1} in named)
            if len(renewed_before) == 1:
                stopping.begin(signal.SIGTERM)
                await asyncio.Event().wait()
        return await record(self, lease, news)

    monkeypatch.setattr(Recorder, "record", seen)
    stopping, patient = Stopping(), replace(QUICK, probe=5.0)
    async with replica_at(database, manager_url, stopping=stopping) as one:
        run_id = await one.start()
        attempt = await manager.begun(run_id)
        async with replica_at(database, manager_url, bounds=patient) as two:
            await two.until(run_id, "running")
            attempt.end()
            await two.until(run_id, "success")
    assert renewed_before == [False, True]
    assert manager.attempts(run_id) == [attempt]


async def test_a_run_that_works_is_taken_over_however_many_wait_to_be_placed(
    database: str, manager: FakeManager, manager_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leash runs out, and their places in the line do not."""
    monkeypatch.setattr(room, "FEW", 2)
    placing = asyncio.Event()

    async def slow(_manager: FakeManager, _executor: FakeExecutor, _body: Any) -> None:
        await placing.wait()

    stopping, patient = Stopping(), replace(QUICK, call=30.0)
    async with replica_at(database, manager_url, stopping=stopping, drives=1) as one:
        working = await one.start()
        attempt = await manager.begun(working)
        await one.until(working, "running")
        manager.moods["propose"].extend([slow] * 10)
        async with replica_at(database, manager_url, bounds=patient) as two:
            waiting = [await two.start() for _ in range(10)]
            await until(lambda: manager.calls["propose"] >= 1 + room.FEW + 1)
            stopping.begin(signal.SIGTERM)
            attempt.end()
            await two.until(working, "success")
            assert not any(manager.attempts(run_id) for run_id in waiting)
            placing.set()
            for run_id in waiting:
                (await manager.begun(run_id)).end()
                await two.until(run_id, "success")
