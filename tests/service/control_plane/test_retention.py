"""Retention on a real database: what goes, in which order, and what stays."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from control_plane.domain.retention import Keep
from control_plane.manager_client import ManagerClient
from control_plane.runs.retain import Retain
from control_plane.storage import retention
from control_plane.storage.pool import make_pool
from control_plane.storage.retention import NotOurTurnError, RetentionStore
from control_plane.storage.run_log import Write
from control_plane.storage.snapshots import SnapshotStore
from tests.service.control_plane.conftest import Replica, Stores, frame, new_run
from tests.service.control_plane.fake_manager import FakeManager
from tests.service.control_plane.kept_runs import ALL, Kept


@pytest.fixture
def kept(stores: Stores, manager_client: ManagerClient) -> Kept:
    return Kept(stores, manager_client)


# ---- what goes ----


async def test_nothing_is_deleted_unless_the_operator_says_so(kept: Kept) -> None:
    run_id = await kept.run(days_ago=10_000)
    await kept.sweep(Keep())
    assert await kept.cursors(run_id) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert await kept.output(run_id) == 1


async def test_output_goes_first_then_events_then_the_run(kept: Kept) -> None:
    young, day, two, three = [await kept.run(days_ago=days, workspace_key=f"w{days}") for days in (0.5, 1.5, 2.5, 3.5)]
    await kept.sweep(ALL)
    assert [await kept.output(run_id) for run_id in (young, day, two)] == [1, 0, 0]
    assert [len(await kept.cursors(run_id)) for run_id in (young, day, two)] == [8, 8, 1]
    assert not await kept.exists(three)
    assert await kept.exists(two)


async def test_runs_that_hold_too_much_to_be_counted_together_go_all_the_same(
    kept: Kept, database: str, manager_client: ManagerClient
) -> None:
    runs = [await kept.run(days_ago=4) for _ in range(8)]
    await kept.stores.pool.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN new; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON kept_runs FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    async with make_pool(database, command_seconds=0.5) as hurried:
        await Retain(RetentionStore(hurried), manager_client, ALL, sweep_every=60, pause=0)()
    assert [run_id for run_id in runs if await kept.exists(run_id)] == []


async def test_a_run_that_is_not_over_keeps_everything_however_old_it_is(kept: Kept) -> None:
    lease = await kept.living()
    await kept.stores.log.write([Write(lease.run_id, [frame(1), frame(2)], lease.token)])
    await kept.age(lease.run_id, 1000)
    await kept.sweep(ALL)
    assert await kept.cursors(lease.run_id) == [1, 2, 3, 4]


async def test_of_a_deleted_run_no_row_is_left(kept: Kept) -> None:
    run_id = await kept.run(days_ago=4)
    await kept.sweep(ALL)
    tables = await kept.stores.pool.fetch(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'run_id'"
    )
    left = {name: await kept.stores.pool.fetchval(f"SELECT count(*) FROM {name} WHERE run_id = $1", run_id)
            for name in (row["table_name"] for row in tables)}  # fmt: skip
    assert {name for name, count in left.items() if count} == {"left_workspaces"}


async def test_more_than_a_batch_goes_in_one_sweep(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("RUNS_A_BATCH", 2), ("EVENTS_A_BATCH", 3), ("CHUNKS_A_BATCH", 1)):
        monkeypatch.setattr(retention, name, size)
    made = [await kept.run(messages=5, days_ago=2.5) for _ in range(5)]
    await kept.sweep(ALL)
    assert [await kept.cursors(run_id) for run_id in made] == [[10]] * 5
    assert [await kept.output(run_id) for run_id in made] == [0] * 5


async def test_what_a_replica_left_undone_is_finished_by_the_next_sweep(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await kept.run(messages=50, days_ago=2.5)
    monkeypatch.setattr("control_plane.runs.retain.BATCHES_A_SWEEP", 4)
    monkeypatch.setattr(retention, "EVENTS_A_BATCH", 5)
    for _ in range(30):
        await kept.sweep(ALL)
    assert await kept.cursors(run_id) == [55]


async def test_beyond_its_bytes_the_oldest_goes_output_first(kept: Kept) -> None:
    big = b"x" * 1000
    old, middle, young = [await kept.run(output=big, days_ago=days) for days in (3, 2, 1)]
    await kept.sweep(Keep(bytes=2000))
    assert [await kept.output(run_id) for run_id in (old, middle, young)] == [0, 0, 1]
    assert [len(await kept.cursors(run_id)) for run_id in (old, middle, young)] == [8, 8, 8]
    await kept.sweep(Keep(bytes=1))
    assert [await kept.output(run_id) for run_id in (old, middle, young)] == [0, 0, 0]
    assert [len(await kept.cursors(run_id)) for run_id in (old, middle, young)] == [1, 1, 1]


async def test_what_ended_a_moment_ago_is_not_touched_for_its_weight(kept: Kept, manager_client: ManagerClient) -> None:
    run_id = await kept.run()
    await Retain(kept.store, manager_client, Keep(bytes=1), sweep_every=60, pause=0)()
    assert len(await kept.cursors(run_id)) == 8


async def test_an_app_says_otherwise_for_its_own_runs_only(kept: Kept) -> None:
    await kept.stores.pool.execute(
        "INSERT INTO apps (app_id, name, retention) VALUES ('keeps', 'k', '{\"eventsDays\":0,\"outputDays\":0}'), "
        "('sheds', 's', '{\"eventsDays\":1}')"
    )
    ours, keeps, sheds = [await kept.run(app_id=app_id, days_ago=1.5) for app_id in (None, "keeps", "sheds")]
    await kept.sweep(Keep(output_days=1, events_days=2))
    assert [len(await kept.cursors(run_id)) for run_id in (ours, keeps, sheds)] == [8, 8, 1]
    assert [await kept.output(run_id) for run_id in (ours, keeps, sheds)] == [0, 1, 0]


async def test_what_an_app_says_is_shown_and_replaced_whole(replica: Replica) -> None:
    app = {"appId": "sheds", "name": "s"}
    said = await replica.http.post("/api/apps/register", json={**app, "retention": {"eventsDays": 1, "maxBytes": 5}})
    assert said.status_code in (200, 201), said.text
    shown = (await replica.http.get("/api/apps/sheds")).json()["retention"]
    assert {name: value for name, value in shown.items() if value is not None} == {"eventsDays": 1, "maxBytes": 5}
    wrong = await replica.http.post("/api/apps/register", json={**app, "retention": {"eventsDays": -1}})
    assert wrong.status_code == 422
    await replica.http.post("/api/apps/register", json=app)
    assert (await replica.http.get("/api/apps/sheds")).json()["retention"] is None


async def test_only_one_replica_works_at_a_time(kept: Kept, database: str) -> None:
    run_id = await kept.run(days_ago=9)
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            assert await connection.fetchval("SELECT pg_try_advisory_xact_lock(7204115, 8)")
            with pytest.raises(NotOurTurnError):
                await kept.store.weigh()
            await kept.sweep(ALL)  # leaves it to the other one
        assert await kept.exists(run_id)
    finally:
        await connection.close()
    await kept.sweep(ALL)
    assert not await kept.exists(run_id)


async def test_ten_replicas_that_sweep_at_once_break_nothing(kept: Kept, database: str, manager_client: ManagerClient) -> None:
    made = [await kept.run(days_ago=2.5) for _ in range(10)]
    async with make_pool(database) as pool:
        others = [Retain(RetentionStore(pool), manager_client, ALL, 60, pause=0) for _ in range(10)]
        for _ in range(5):
            await asyncio.gather(*(sweep() for sweep in others))
    await kept.sweep(ALL)
    assert [await kept.cursors(run_id) for run_id in made] == [[8]] * 10


# ---- sessions ----


async def test_the_run_a_session_goes_on_from_is_kept_while_the_session_is_young(kept: Kept) -> None:
    session: dict[str, Any] = {"session_id": "s", "workspace_key": "ws"}
    first = await kept.run(days_ago=9, **session)
    second = await kept.run(days_ago=8, **session)
    failed = await kept.stores.runs.create(new_run(**session), None)  # young, and nothing to go on from
    await kept.stores.pool.execute(
        "UPDATE agent_runs SET status = 'error', error_code = 'internal', finished_at = now() WHERE id = $1", failed
    )
    await kept.sweep(ALL)
    assert [await kept.exists(run_id) for run_id in (first, second, failed)] == [False, True, True]
    tail = await kept.stores.runs.session_tail("s", None)
    assert tail is not None
    assert tail.engine_session == f"engine-{second}"


async def test_a_session_past_its_age_goes_whole_and_its_executors_hear_of_it(kept: Kept, manager: FakeManager) -> None:
    session: dict[str, Any] = {"session_id": "s", "workspace_key": "ws"}
    made = [await kept.run(days_ago=days, **session) for days in (9, 8, 7)]
    await kept.stores.pool.execute("UPDATE attempts SET executor_id = 'two' WHERE run_id = $1", made[1])
    await kept.stores.pool.execute("UPDATE attempts SET executor_id = 'one' WHERE run_id <> $1", made[1])
    await kept.sweep(ALL)
    assert not [run_id for run_id in made if await kept.exists(run_id)]
    told = {name: executor.forgotten for name, executor in manager.executors.items()}
    assert {run_id for call in told["one"] for run_id in call["runIds"]} == {made[0], made[2]}
    assert [(call["workspace"], call["runIds"]) for call in told["two"]] == [("ws", [made[1]])]
    assert await kept.stores.pool.fetchval("SELECT count(*) FROM left_workspaces") == 0


async def test_the_run_of_the_newest_snapshot_is_kept_while_its_session_is_young(kept: Kept) -> None:
    session: dict[str, Any] = {"session_id": "s", "workspace_key": "ws"}
    first = await kept.run(days_ago=9, **session)
    await kept.snapshot(first, "ws")
    second = await kept.run(**session)
    await kept.sweep(ALL)
    assert await kept.exists(first)
    await kept.age(second, 10)
    await kept.sweep(ALL)
    assert not await kept.exists(first)
    assert not await kept.exists(second)
    assert await kept.stores.pool.fetchval("SELECT count(*) FROM workspace_snapshots") == 0


async def test_a_run_of_an_app_that_keeps_all_holds_the_workspace_it_shares(kept: Kept) -> None:
    await kept.stores.pool.execute("INSERT INTO apps (app_id, name, retention) VALUES ('keeps', 'k', '{\"runsDays\":0}')")
    ours = await kept.run(days_ago=9, workspace_key="shared")
    theirs = await kept.run(days_ago=8, workspace_key="shared", app_id="keeps")
    await kept.sweep(ALL)
    assert await kept.exists(ours)
    assert await kept.exists(theirs)


@pytest.mark.parametrize("days", [1, 2.5])  # before and after the events of both went
async def test_who_holds_a_sessions_newest_files_is_known_without_their_events(kept: Kept, days: float) -> None:
    session: dict[str, Any] = {"session_id": "s", "workspace_key": "ws"}
    first = await old_at(kept, "one", days_ago=days, **session)
    second = await old_at(kept, "two", days_ago=days - 0.1, **session)
    await kept.snapshot(first, "ws")
    third = await kept.living(**session)
    await kept.sweep(Keep(events_days=2))
    standing = await SnapshotStore(kept.stores.pool).standing(await kept.stores.runs.driven(third.run_id), 1)
    assert standing.newest_at == "two"
    assert [name.run_id for name in standing.newest] == [second]
    assert standing.lost_from is not None
    assert standing.lost_from.run_id == second  # the snapshot is of the first


# ---- workspaces ----


async def left(kept: Kept) -> list[str]:
    rows = await kept.stores.pool.fetch("SELECT DISTINCT executor_id FROM left_workspaces ORDER BY executor_id")
    return [row["executor_id"] for row in rows]


async def again(kept: Kept) -> None:
    await kept.stores.pool.execute("UPDATE left_workspaces SET tell_after = now()")
    await kept.sweep(ALL)


async def old_at(kept: Kept, executor: str, days_ago: float = 9, **changes: Any) -> str:
    run_id = await kept.run(days_ago=days_ago, **changes)
    await kept.stores.pool.execute("UPDATE attempts SET executor_id = $2 WHERE run_id = $1", run_id, executor)
    return run_id


async def test_a_lost_executor_is_told_when_it_is_back(kept: Kept, manager: FakeManager) -> None:
    manager.executors["two"].gone = True
    await old_at(kept, "two")
    await kept.sweep(ALL)
    await again(kept)
    assert await left(kept) == ["two"]
    manager.executors["two"].gone = False
    await again(kept)
    assert await left(kept) == []
    assert len(manager.executors["two"].forgotten) == 1


async def test_a_workspace_in_use_is_asked_for_again(kept: Kept, manager: FakeManager) -> None:
    manager.executors["one"].forgets = "in_use"
    await old_at(kept, "one")
    await kept.sweep(ALL)
    assert await left(kept) == ["one"]
    manager.executors["one"].forgets = "gone"
    await again(kept)
    assert await left(kept) == []


async def test_a_workspace_with_a_new_run_is_no_longer_told_of(kept: Kept, manager: FakeManager) -> None:
    manager.executors["one"].gone = True
    await old_at(kept, "one", session_id="s", workspace_key="ws")
    await kept.sweep(ALL)
    manager.executors["one"].gone = False
    await kept.run(session_id="s", workspace_key="ws")
    await again(kept)
    assert manager.executors["one"].forgotten == []
    assert await left(kept) == ["one"]


async def test_a_run_that_comes_between_the_look_and_the_word_stops_the_word(kept: Kept, manager: FakeManager) -> None:
    async def comes(*_: object) -> None:
        await kept.stores.runs.create(new_run(session_id="s", workspace_key="ws"), None)

    await old_at(kept, "one", session_id="s", workspace_key="ws")
    manager.moods["renew"].append(comes)
    await kept.sweep(ALL)
    assert manager.executors["one"].forgotten == []


async def test_snapshots_are_deleted_by_any_executor_when_theirs_is_gone(kept: Kept, manager: FakeManager) -> None:
    run_id = await old_at(kept, "lost", workspace_key="ws")
    await kept.snapshot(run_id, "ws")
    await kept.sweep(ALL)
    assert [call["workspace"] for call in manager.executors["one"].forgotten] == ["ws"]
    assert await left(kept) == ["lost"]
    await kept.stores.pool.execute("UPDATE left_workspaces SET since = now() - interval '31 days'")
    await again(kept)
    assert await left(kept) == []
