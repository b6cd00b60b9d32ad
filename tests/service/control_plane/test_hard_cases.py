"""Of the fifteen hardest cases (``docs/reliability.md``) those that need a control plane, a database and exact moments."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.runs.record import Recorder
from tests.e2e.kit import Frames
from tests.fault_proxy import Address, FaultProxy, faulty
from tests.loopback import until
from tests.service.control_plane.conftest import Replica, Stores, replica_at, soon
from tests.service.control_plane.fake_manager import FakeManager


def place_of(dsn: str) -> Address:
    parts = urlsplit(dsn)
    folder = parse_qs(parts.query).get("host")
    return Path(folder[0], ".s.PGSQL.5432") if folder else (parts.hostname or "127.0.0.1", parts.port or 5432)


@pytest.fixture
async def cut_off(database: str, manager_url: str) -> AsyncIterator[tuple[Replica, FaultProxy]]:
    """A control plane, and the network between it and its database."""
    parts = urlsplit(database)
    with faulty(lambda: place_of(database)) as network:
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{network.port}"
        async with replica_at(parts._replace(netloc=netloc, query="").geturl(), manager_url) as replica:
            yield replica, network
            network.heal()


# ---- 5 and 9: a commit of which nobody knows whether it was made ----


async def test_a_start_whose_commit_was_not_heard_of_is_found_by_its_key(
    cut_off: tuple[Replica, FaultProxy], stores: Stores, manager: FakeManager
) -> None:
    replica, network = cut_off
    request, headers = {"provider": "scripted", "prompt": "x"}, {"idempotency-key": "k"}
    network.mute_after = [b"COMMIT"]
    start = asyncio.ensure_future(replica.http.post("/api/runs/start", json=request, headers=headers))
    await soon(lambda: stores.pool.fetchval("SELECT count(*) FROM agent_runs"))
    network.cut()
    network.heal()
    assert (await start).status_code == 503
    [made] = await stores.pool.fetch("SELECT id FROM agent_runs")
    again = await replica.http.post("/api/runs/start", json=request, headers=headers)
    assert (again.status_code, again.json()["runId"]) == (202, made["id"])
    (await manager.begun(made["id"])).end()
    await replica.until(made["id"], "success")
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == 1


async def test_events_whose_commit_was_not_heard_of_are_written_once(
    cut_off: tuple[Replica, FaultProxy], stores: Stores, manager: FakeManager
) -> None:
    replica, network = cut_off
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    for number in range(3):
        network.mute_after = [f"kumquat {number}".encode(), b"COMMIT"]
        attempt.say("message.completed", {"messageId": f"m{number}", "text": f"kumquat {number}"})
        said = "SELECT count(*) FROM run_events WHERE run_id = $1 AND kind = 'message.completed'"

        async def stored(said: str = said, number: int = number) -> bool:
            return await stores.pool.fetchval(said, run_id) > number

        await soon(stored)
        network.cut()
        network.heal()
        await soon(lambda: is_there(replica))
    attempt.end()
    await replica.until(run_id, "success")
    events = await replica.events(run_id)
    assert [each["cursor"] for each in events] == list(range(1, len(events) + 1))
    assert [each["data"]["text"] for each in events if each["kind"] == "message.completed"] == [
        "kumquat 0", "kumquat 1", "kumquat 2",
    ]  # fmt: skip


async def is_there(replica: Replica) -> bool:
    return (await replica.http.get("/readyz")).status_code == 200


# ---- 8: one question, a hundred answers ----


async def test_of_a_hundred_answers_one_wins_and_all_others_learn_which_also_after_a_restart(
    database: str, manager: FakeManager, manager_url: str
) -> None:
    async with replica_at(database, manager_url) as one, replica_at(database, manager_url) as two:
        run_id = await one.start()
        attempt = await manager.begun(run_id)
        attempt.ask("q1")
        await one.until(run_id, "waiting_user")
        answers = await asyncio.gather(
            *((one, two)[number % 2].reply(run_id, "q1", answer=f"answer {number}") for number in range(100))
        )
        statuses, winners = told(answers)
        assert (statuses, len(winners)) == (Counter({200: 1, 409: 99}), 1)
        await until(lambda: "q1" in attempt.replies)
    async with replica_at(database, manager_url) as restarted:
        late = await asyncio.gather(*(restarted.reply(run_id, "q1", answer=f"late {number}") for number in range(100)))
        assert told(late) == (Counter({409: 100}), winners)
        [won] = winners
        same = await restarted.reply(run_id, "q1", answer=won)
        assert (same.status_code, same.json()["duplicate"]) == (200, True)
        attempt.say("interaction.resolved", {"questionId": "q1", "how": "answered"})
        attempt.end()
        await restarted.until(run_id, "success")
    assert attempt.replies["q1"]["answer"] == won


def told(answers: list[httpx.Response]) -> tuple[Counter[int], set[str]]:
    """How often each status was answered, and the winners that were named."""
    named = {each.json()["answer"]["answer"] for each in answers if each.status_code == 409}
    return Counter(each.status_code for each in answers), named


# ---- 14: a driver that cannot reach its database keeps what it has on its leash ----


async def test_an_accepted_attempt_is_renewed_while_that_it_was_accepted_cannot_be_written(
    replica: Replica, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    database_is_back = asyncio.Event()
    record = Recorder.record

    async def slow(self: Recorder, lease: Any, news: Any) -> Any:
        if Move(Signal.ATTEMPT_ACCEPTED) in news:
            await database_is_back.wait()
        return await record(self, lease, news)

    monkeypatch.setattr(Recorder, "record", slow)
    run_id = await replica.start()
    attempt = await manager.begun(run_id)

    def renewed() -> bool:
        named = [each for one in manager.executors.values() for call in one.renewals for each in call["attempts"]]
        return {"runId": run_id, "attempt": 1} in named

    await until(renewed)
    database_is_back.set()
    attempt.end()
    await replica.until(run_id, "success")


# ---- 4: a client that comes back the next day, to another replica ----


async def test_a_stream_of_the_day_before_is_complete_at_another_replica(
    database: str, manager_url: str, manager: FakeManager, stores: Stores
) -> None:
    async def read(replica: Replica, run_id: str, after: int, count: int | None = None) -> list[tuple[int, str]]:
        """(id, data) of that many frames, or of all until the stream ends."""
        seen: list[tuple[int, str]] = []
        headers = {"last-event-id": str(after)}
        async with asyncio.timeout(30), replica.http.stream("GET", f"/api/runs/{run_id}/stream", headers=headers) as answer:
            async for frame in Frames(answer):
                seen.append((int(frame.id), frame.data.decode()))
                if len(seen) == count:
                    break
        return seen

    async with replica_at(database, manager_url) as one:
        run_id = await one.start()
        attempt = await manager.begun(run_id)
        for number in range(300):
            attempt.say("message.completed", {"messageId": f"m{number}", "text": str(number)})
        seen = await read(one, run_id, 0, 150)
    async with replica_at(database, manager_url) as two:
        await stores.pool.execute("UPDATE run_events SET at = at - interval '1 day'")
        await stores.pool.execute("UPDATE agent_runs SET created_at = created_at - interval '1 day'")
        rest = asyncio.ensure_future(read(two, run_id, seen[-1][0]))
        attempt.say("message.completed", {"messageId": "today", "text": "today"})
        attempt.end()
        seen += await rest
        stored = await two.events(run_id)
    assert [cursor for cursor, _ in seen] == list(range(1, len(stored) + 1))
    assert [json.loads(data)["data"] for _, data in seen] == [each["data"] for each in stored]
    assert sum(each["kind"] == "message.completed" for each in stored) == 301
