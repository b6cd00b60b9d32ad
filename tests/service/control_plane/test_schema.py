"""The schema says what the code says, and a bug becomes an error instead of a wrong row."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from control_plane.domain.news import Stop
from control_plane.storage.migrate import FOLDER, MigrationError, migrate
from control_plane.storage.queries import load, names
from control_plane.storage.run_log import Write
from shared.contracts.interactions import InteractionStatus
from shared.contracts.runs import TERMINAL, RunStatus
from tests.service.control_plane.conftest import Stores, new_run, soon


@pytest.mark.parametrize(("aggregate", "name"), names())
async def test_every_named_query_prepares(module_database: str, aggregate: str, name: str) -> None:
    connection = await asyncpg.connect(module_database)
    try:
        await connection.prepare(load(aggregate)[name])
    finally:
        await connection.close()


async def test_the_database_knows_the_same_statuses_as_the_code(stores: Stores) -> None:
    rows = await stores.pool.fetch("SELECT unnest(enum_range(NULL::run_status))::text AS status")
    assert [row["status"] for row in rows] == [status.value for status in RunStatus]


async def test_the_database_knows_the_same_question_statuses_as_the_code(stores: Stores) -> None:
    text = await stores.pool.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'interactions_status_check'"
    )
    assert all(f"'{status}'" in text for status in InteractionStatus)


@pytest.mark.parametrize("ended", sorted(TERMINAL))
async def test_no_statement_moves_a_finished_run(stores: Stores, ended: RunStatus) -> None:
    run_id = await stores.runs.create(new_run(), None)
    await stores.pool.execute(
        "UPDATE agent_runs SET status = $2::run_status, finished_at = now(), started_at = now(), error_code = $3 WHERE id = $1",
        run_id, ended, None if ended == RunStatus.SUCCESS else "internal",
    )  # fmt: skip
    with pytest.raises(asyncpg.CheckViolationError, match="for ever"):
        await stores.pool.execute("UPDATE agent_runs SET status = 'running', finished_at = NULL WHERE id = $1", run_id)


@pytest.mark.parametrize("statement", [
    "UPDATE agent_runs SET finished_at = now() WHERE id = $1",
    "UPDATE agent_runs SET status = 'running' WHERE id = $1",
    "UPDATE agent_runs SET status = 'stopping' WHERE id = $1",
    "UPDATE agent_runs SET status = 'error', finished_at = now() WHERE id = $1",
    "UPDATE run_heads SET lease_until = now() WHERE run_id = $1",
    "UPDATE run_heads SET lease_token = gen_random_uuid(), lease_until = now(), claim_after = NULL WHERE run_id = $1",
    "INSERT INTO interactions (run_id, question_id, attempt, request, status) VALUES ($1, 'q', 1, '{}', 'answered')",
])  # fmt: skip
async def test_the_schema_refuses_half_a_truth(stores: Stores, statement: str) -> None:
    run_id = await stores.runs.create(new_run(), None)
    with pytest.raises(asyncpg.CheckViolationError):
        await stores.pool.execute(statement, run_id)


async def test_a_run_never_goes_back_to_queued(stores: Stores) -> None:
    lease = await stores.started()
    with pytest.raises(asyncpg.CheckViolationError, match="queued"):
        await stores.pool.execute("UPDATE agent_runs SET status = 'queued' WHERE id = $1", lease.run_id)


async def test_an_answer_cannot_be_changed(stores: Stores) -> None:
    lease = await stores.started()
    await stores.pool.execute(
        "INSERT INTO interactions (run_id, question_id, attempt, request, status, answer, answered_at) "
        "VALUES ($1, 'q', 1, '{}', 'answered', '{\"answer\":\"a\"}', now())",
        lease.run_id,
    )
    for change in ('answer = \'{"answer":"b"}\'', "status = 'pending', answer = NULL, answered_at = NULL"):
        with pytest.raises(asyncpg.CheckViolationError):
            await stores.pool.execute(f"UPDATE interactions SET {change} WHERE run_id = $1", lease.run_id)


async def test_a_run_has_one_living_attempt(stores: Stores) -> None:
    lease = await stores.started()
    with pytest.raises(asyncpg.UniqueViolationError):
        await stores.pool.execute(
            "INSERT INTO attempts (run_id, attempt, executor_id, executor_instance, executor_url) VALUES ($1, 2, 'e', 'i', 'u')",
            lease.run_id,
        )


async def test_four_replicas_that_start_at_once_migrate_once(postgres_dsn: str, stores: Stores, database: str) -> None:
    await stores.pool.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    applied = await asyncio.gather(*(migrate(database) for _ in range(4)))
    assert sorted(len(each) for each in applied) == [0, 0, 0, len(list(FOLDER.glob("*.sql")))]


async def test_a_migration_that_was_changed_is_refused(database: str, tmp_path: Path) -> None:
    (tmp_path / "0001_runs.sql").write_text("-- migrate:up\nSELECT 1;\n")
    with pytest.raises(MigrationError, match="changed"):
        await migrate(database, tmp_path)


async def test_nobody_waits_for_ever_behind_one_that_migrates(database: str, stores: Stores) -> None:
    async with stores.pool.acquire() as frozen:
        await frozen.execute("SELECT pg_advisory_lock(7204115)")
        with pytest.raises(MigrationError, match="another one migrates"):
            await migrate(database, wait_seconds=0.1)
        await frozen.execute("SELECT pg_advisory_unlock(7204115)")
    assert await migrate(database, wait_seconds=10) == []


async def test_who_is_frozen_while_it_migrates_is_ended_by_the_server(database: str, stores: Stores, tmp_path: Path) -> None:
    settings = "current_setting('idle_session_timeout'), current_setting('idle_in_transaction_session_timeout')"
    (tmp_path / "9999_seen.sql").write_text(f"-- migrate:up\nCREATE TABLE seen AS SELECT ARRAY[{settings}] AS bounds;\n")
    await migrate(database, tmp_path)
    assert await stores.pool.fetchval("SELECT bounds FROM seen") == ["30s", "30s"]


async def test_a_change_that_waits_for_its_table_holds_up_nobody_else_there(
    database: str, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.storage.migrate._PAUSE_SECONDS", 0.1)
    (tmp_path / "9999_change.sql").write_text("-- migrate:up\nALTER TABLE agent_runs ADD COLUMN seen boolean;\n")
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'agent_runs'::regclass AND NOT granted"
    async with stores.pool.acquire() as reader:
        async with reader.transaction():  # as a backup reads, for as long as it takes
            await reader.execute("SELECT FROM agent_runs")
            changing = asyncio.ensure_future(migrate(database, tmp_path))
            async with asyncio.timeout(10):
                await soon(lambda: reader.fetchval(waiting))
                await stores.pool.execute("SELECT FROM agent_runs")
        assert await changing == ["9999"]


async def test_a_table_that_stays_in_use_is_told(
    database: str, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.storage.migrate._TABLE_SECONDS", 0.05)
    (tmp_path / "9999_change.sql").write_text("-- migrate:up\nALTER TABLE agent_runs ADD COLUMN seen boolean;\n")
    async with stores.pool.acquire() as reader, reader.transaction():
        await reader.execute("SELECT FROM agent_runs")
        with pytest.raises(MigrationError, match="uses what is to be changed"):
            await migrate(database, tmp_path, wait_seconds=0.01)


async def test_runs_that_lived_before_workspaces_took_turns_take_them_too(database: str, stores: Stores) -> None:
    first, _second = [await stores.runs.create(new_run(workspace_key="w"), None) for _ in range(2)]
    await stores.pool.execute(
        "ALTER TABLE agent_runs DROP COLUMN workspace_key;"
        "CREATE INDEX agent_runs_living_session ON agent_runs (session_id);"
        "DELETE FROM schema_migrations WHERE version = '0013'; DELETE FROM schema_migration_sums WHERE version = '0013'"
    )
    assert await migrate(database) == ["0013"]
    assert [lease.run_id for lease in await stores.runs.claim(10, 60)] == [first]


async def test_an_empty_migration_is_refused(database: str, tmp_path: Path) -> None:
    (tmp_path / "0002_nothing.sql").write_text("-- migrate:up\n\n")
    with pytest.raises(MigrationError, match="nothing stands"):
        await migrate(database, tmp_path)


async def test_a_stop_without_a_lease_still_takes_the_same_lock(stores: Stores) -> None:
    lease = await stores.started()
    async with stores.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM run_heads WHERE run_id = $1 FOR UPDATE", lease.run_id)
        stop = asyncio.ensure_future(stores.log.write([Write(lease.run_id, [Stop()])]))
        done, _ = await asyncio.wait((stop,), timeout=0.3)
        assert not done
    assert (await stop)[0] is not None
