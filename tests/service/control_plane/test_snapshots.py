"""What Postgres knows of a session's files, and what executors are told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.run import DrivenRun, Lease, Placement
from control_plane.domain.standing import NOBODY_YET, AttemptName, Standing
from control_plane.storage.run_log import Write
from control_plane.storage.snapshots import SnapshotStore
from shared.contracts.events import AttemptLost, EventRef
from tests.service.control_plane.conftest import Replica, Stores, frame, new_run
from tests.service.control_plane.fake_manager import FakeManager

ENDED = json.dumps({"outcome": "success", "activeMs": 1})
STARTED = json.dumps({"executorId": "e", "instance": "i", "provider": "scripted", "sandbox": "s", "timeouts": {"runMs": 60_000}})


def taken(mark: str = "a", session: str | None = "s1") -> str:
    return json.dumps({"sha256": mark * 64, "bytes": 10, "path": "/w/ses", "engineSession": session})


class Session:
    """The runs of one session, attempt by attempt."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.snapshots = SnapshotStore(stores.pool)

    async def begun(self, run_id: str, executor_id: str, *, accepted: bool = True) -> Lease:
        await self.stores.runs.create(new_run(run_id, workspace_key="ses"), None)
        lease = next(each for each in await self.stores.runs.claim(100, 60) if each.run_id == run_id)
        await self.attempt(lease, executor_id, accepted=accepted)
        return lease

    async def attempt(self, lease: Lease, executor_id: str, *, accepted: bool = True) -> None:
        await self.stores.runs.next_attempt(lease, Placement(executor_id, "i", "http://x"))
        if accepted:
            await self.stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_ACCEPTED)], lease.token)])

    async def told(self, lease: Lease, *frames: tuple[str, str], attempt: int = 1) -> None:
        news = [frame(at, kind, data, attempt) for at, (kind, data) in enumerate(frames, 1)]
        await self.stores.log.write([Write(lease.run_id, news, lease.token)])

    async def lost(self, lease: Lease) -> None:
        event = AttemptLost(executor_id="e", reason="gone", executor_cursor=0)
        await self.stores.log.write([Write(lease.run_id, [Move(Signal.ATTEMPT_LOST, event=event)], lease.token)])

    async def standing(self, run_id: str, attempt: int = 1) -> Standing:
        return await self.snapshots.standing(await self.run(run_id), attempt)

    async def run(self, run_id: str) -> DrivenRun:
        return await self.stores.runs.driven(run_id)

    async def created(self, run_id: str) -> str:
        await self.stores.runs.create(new_run(run_id, workspace_key="ses"), None)
        return run_id


@pytest.fixture
def session(stores: Stores) -> Session:
    return Session(stores)


WORK = ("message.completed", '{"text":"hi"}')


async def whole(session: Session, run_id: str, executor_id: str, mark: str = "a") -> None:
    lease = await session.begun(run_id, executor_id)
    await session.told(lease, ("attempt.started", STARTED), WORK, ("snapshot", taken(mark)), ("attempt.ended", ENDED))


async def test_the_newest_snapshot_is_named_with_what_it_holds(session: Session) -> None:
    await whole(session, "run_1", "exec-1")
    known = await session.standing(await session.created("run_2"))
    assert (known.newest, known.newest_at, known.is_own) == ((AttemptName("run_1", 1),), "exec-1", False)
    assert known.snapshot is not None
    assert (known.snapshot.executor_id, known.snapshot.run_id, known.snapshot.engine_session) == ("exec-1", "run_1", "s1")
    events = await session.stores.events.page("run_1", 0, 100)
    assert events[known.snapshot.cursor - 1].kind == "message.completed", "the last event whose work is in it"
    assert "snapshot" not in [event.kind for event in events]
    assert known.is_movable


async def test_a_snapshot_knows_the_sessions_that_had_begun_before_it(session: Session) -> None:
    for number, engine_session in enumerate(["s1", "s2"], 1):
        lease = await session.begun(f"run_{number}", "exec-1")
        begun = ("session.started", json.dumps({"engineSession": engine_session}))
        kept = [("snapshot", taken(session=engine_session))] if number == 1 else []
        await session.told(lease, ("attempt.started", STARTED), begun, WORK, *kept, ("attempt.ended", ENDED))
    for wanted, is_known in {"s1": True, "s2": False, "s3": False, None: False}.items():
        run_id = f"run_{wanted}"
        await session.stores.runs.create(new_run(run_id, workspace_key="ses", resume_session=wanted), None)
        known = (await session.standing(run_id)).snapshot
        assert known is not None
        assert (known.knows_session, known.engine_session, known.provider) == (is_known, "s1", "scripted"), wanted


async def test_each_snapshot_is_a_new_generation(session: Session) -> None:
    for number, mark in enumerate("abc", 1):
        await whole(session, f"run_{number}", f"exec-{number}", mark)
    rows = await session.stores.pool.fetch("SELECT generation, sha256, executor_id, run_id FROM workspace_snapshots")
    assert [tuple(row) for row in rows] == [(3, "c" * 64, "exec-3", "run_3")]


async def test_a_window_written_twice_counts_one_snapshot(session: Session) -> None:
    lease = await session.begun("run_1", "exec-1")
    for _ in range(2):
        await session.told(lease, ("attempt.started", STARTED), WORK, ("snapshot", taken()))
    assert await session.stores.pool.fetchval("SELECT generation FROM workspace_snapshots") == 1


async def test_work_after_the_snapshot_is_lost_from_its_first_event(session: Session) -> None:
    await whole(session, "run_1", "exec-1")
    lease = await session.begun("run_2", "exec-1")
    await session.told(lease, ("attempt.started", STARTED), ("diagnostic", '{"code":"c","message":"m"}'), WORK, WORK)
    await session.lost(lease)
    known = await session.standing(await session.created("run_3"))
    events = await session.stores.events.page("run_2", 0, 100)
    first = next(event.cursor for event in events if event.kind == "message.completed")
    assert known.lost_from == EventRef(run_id="run_2", cursor=first)
    assert known.newest == (AttemptName("run_2", 1),)
    assert not known.is_movable


async def test_an_attempt_that_did_nothing_loses_nothing(session: Session) -> None:
    await whole(session, "run_1", "exec-1")
    lease = await session.begun("run_2", "exec-2")
    await session.told(lease, ("attempt.started", STARTED), ("session.started", '{"engineSession":"s2"}'))
    await session.lost(lease)
    known = await session.standing(await session.created("run_3"))
    assert (known.lost_from, known.newest_at, known.is_movable) == (None, "exec-1", True)
    assert known.newest == (AttemptName("run_2", 1), AttemptName("run_1", 1)), "whoever has the files of either has the newest"


async def test_an_attempt_nobody_surely_heard_of_may_have_the_newest_files_or_not(session: Session) -> None:
    await whole(session, "run_1", "exec-1")
    lease = await session.begun("run_2", "exec-2", accepted=False)
    await session.lost(lease)
    await session.attempt(lease, "exec-2", accepted=False)
    known = await session.standing("run_2", 2)
    assert (known.newest, known.newest_at) == ((AttemptName("run_2", 1), AttemptName("run_1", 1)), "exec-1")


async def test_without_a_snapshot_everything_is_lost_and_a_run_of_its_own_is_known_as_one(session: Session) -> None:
    lease = await session.begun("run_1", "exec-1")
    await session.told(lease, ("attempt.started", STARTED), WORK)
    known = await session.standing("run_1", 2)
    assert (known.snapshot, known.is_own, known.is_movable) == (None, True, False)
    assert known.lost_from is not None
    assert known.lost_from.run_id == "run_1"


async def test_a_first_attempt_in_a_workspace_of_its_own_asks_nothing(stores: Stores) -> None:
    await stores.runs.create(new_run("run_1", workspace_key="run_1"), None)
    assert await SnapshotStore(stores.pool).standing(await stores.runs.driven("run_1"), 1) is NOBODY_YET
    assert await SnapshotStore(stores.pool).standing(await stores.runs.driven("run_1"), 2) is NOBODY_YET


# ---- what a driver makes of it ----


def kept(mark: str = "a") -> dict[str, Any]:
    return json.loads(taken(mark))


async def test_a_start_names_the_files_it_needs_and_what_to_do_without_them(replica: Replica, manager: FakeManager) -> None:
    first = await replica.start(sessionId="s")
    attempt = await manager.begun(first)
    attempt.say("session.started", {"engineSession": "s1"})
    attempt.say("message.completed", {"messageId": "m", "text": "hi"})
    attempt.say("snapshot", kept())
    attempt.end()
    await replica.until(first, "success")
    assert "after" not in attempt.request or attempt.request["after"] == []
    second = await replica.start(sessionId="s", prompt="more")
    attempt = await manager.begun(second)
    home = manager.proposals[-1]["newestAt"]
    assert (home, manager.proposals[-1]["movable"]) == ("one", True)
    assert attempt.request["after"] == [{"runId": first, "attempt": 1}]
    other = attempt.request["otherwise"]
    assert (other["resumeSessionId"], other["messages"]) == ("s1", [{"role": "user", "content": "more"}])
    assert (other["snapshot"]["sha256"], other["snapshot"]["runId"]) == ("a" * 64, first)
    assert "lostFrom" not in other
    attempt.end()
    await replica.until(second, "success")
