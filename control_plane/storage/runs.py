"""The run aggregate in Postgres: requests, heads, leases and attempts.

Statuses and events are moved by ``run_log`` alone; here a run is created, claimed, handed on and read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg

from control_plane.domain.line import Ageing, Caps
from control_plane.domain.profile import Profile
from control_plane.domain.run import (
    DrivenRun,
    IdempotencyKey,
    Lease,
    NewRun,
    Overdue,
    Placement,
    Resumable,
    RunFilter,
    RunRow,
    Stuck,
)
from control_plane.domain.standing import NO_WORK
from control_plane.storage.claims import Asked, claim_within
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import LIST_BYTES, load
from control_plane.storage.wakeups import Channel, Tell, nobody
from shared.contracts.providers import Provider
from shared.contracts.runs import OnSessionBusy, RunStatus
from shared.errors import ErrorCode, RunyardError, invalid

_SQL = load("runs")
_SWEEPS = load("sweeps")
_NO_WORK = sorted(NO_WORK)
UNHURRIED = Ageing()
NO_CAPS = Caps()
WORKSPACE_RUNS = 100  # not over, in one workspace: what waits there for a person must not fill the line for everybody
FULL_RETRY_SECONDS = 30


class RunStore:
    """``tell`` hears of what waits for a driver, after its commit. ``ageing``: how what waits rises in the line; ``caps``:
    how many runs of an app or provider may live at once.
    """

    def __init__(self, pool: asyncpg.Pool, tell: Tell = nobody, ageing: Ageing = UNHURRIED, caps: Caps = NO_CAPS) -> None:
        self._pool = pool
        self._tell = tell
        self._ageing = ageing
        self._caps = caps

    # ---- create ----

    async def create(self, run: NewRun, key: IdempotencyKey | None) -> str:
        """Write a queued run with its first event, in one transaction. Returns its id, or that of the run the key made.

        Raises ``idempotency_conflict`` when the key came with another body before, ``session_busy`` where that is to be refused,
        ``queue_full`` for one that would wait behind too many in its workspace.
        """
        with storage_errors():
            if key is None and run.has_own_workspace:  # one statement is a transaction of its own
                await self._insert(self._pool, run)
            elif (made_before := await self._insert_alone(run, key)) is not None:
                return made_before
        self._tell(Channel.WORK, "")
        return run.run_id

    async def _insert_alone(self, run: NewRun, key: IdempotencyKey | None) -> str | None:
        """One run of a key, and of a workspace one after the other. Returns the run that was made with this key before."""
        async with self._pool.acquire() as connection, connection.transaction():
            if key is not None and not await self._take_key(connection, run, key):
                return await self._run_of(connection, run.app_id, key)
            if not run.has_own_workspace:
                run = await self._in_workspace_of_session(connection, run)
                await connection.execute(_SQL["lock_workspace"], run.workspace_key)
                if run.on_session_busy is OnSessionBusy.REJECT:
                    await self._refuse_busy(connection, run)
                if run.on_session_busy is not OnSessionBusy.INTERRUPT:  # that one makes room
                    await self._refuse_crowd(connection, run)
            await self._insert(connection, run)
        return None

    async def _in_workspace_of_session(self, connection: Any, run: NewRun) -> NewRun:
        """The run where its session works, with no engine session of elsewhere. Raises ``invalid_request`` if it asks for one."""
        if run.session_id is None:
            return run
        await connection.execute(_SQL["lock_session"], f"{run.app_id or ''}/{run.session_id}")
        workspace_key = await connection.fetchval(_SQL["session_workspace"], run.session_id, run.app_id)
        if workspace_key in (None, run.workspace_key):
            return run
        if run.resumes:
            raise invalid("sessionId", f"session {run.session_id} works in another workspace than what is to be resumed")
        return replace(run, workspace_key=workspace_key, resume_session=None)

    async def _refuse_busy(self, connection: Any, run: NewRun) -> None:
        """An app is told of its own runs only."""
        busy = await connection.fetchrow(_SQL["busy_with"], run.workspace_key)
        if busy is None:
            return
        extra = {} if run.session_id is None else {"sessionId": run.session_id}
        if run.app_id not in (None, busy["app_id"]):
            raise RunyardError(ErrorCode.SESSION_BUSY, "someone else works in its workspace", extra=extra)
        detail = f"{busy['id']}, which is to be over first, is {busy['status']}"
        raise RunyardError(ErrorCode.SESSION_BUSY, detail, extra={**extra, "runId": busy["id"]})

    async def _refuse_crowd(self, connection: Any, run: NewRun) -> None:
        if await connection.fetchval(_SQL["living_in_workspace"], run.workspace_key, WORKSPACE_RUNS) >= WORKSPACE_RUNS:
            whose = "its workspace" if run.session_id is None else f"session {run.session_id}"
            detail = f"{WORKSPACE_RUNS} runs of {whose} are not over"
            raise RunyardError(ErrorCode.QUEUE_FULL, detail, retry_after=FULL_RETRY_SECONDS)

    async def of_key(self, app_id: str | None, key: IdempotencyKey) -> str | None:
        """The run a key has made already, or None. Raises ``idempotency_conflict`` like ``create``."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["idempotent_run"], app_id or "", key.key)
        return None if row is None else _same_body(row, key)

    async def _take_key(self, connection: Any, run: NewRun, key: IdempotencyKey) -> bool:
        taken = await connection.fetchval(_SQL["keep_idempotency_key"], run.app_id or "", key.key, key.body_sha256, run.run_id)
        return taken is not None

    async def _run_of(self, connection: Any, app_id: str | None, key: IdempotencyKey) -> str:
        return _same_body(await connection.fetchrow(_SQL["idempotent_run"], app_id or "", key.key), key)

    async def _insert(self, connection: Any, run: NewRun) -> None:
        await connection.execute(
            _SQL["create_run"], run.run_id, run.source, run.source_ref, run.session_id, json.dumps(run.metadata), run.app_id,
            run.provider.value, run.model, run.interaction_ms, run.on_expiry.value, run.priority, run.workspace_key,
            run.resume_session, run.request, run.profile, run.first_event, run.max_attempts, run.retry_after_side_effects,
            run.lender, run.on_session_busy is OnSessionBusy.INTERRUPT, run.expiry_answer,
        )  # fmt: skip

    async def forget_idempotency_keys(self, older_than_seconds: float) -> None:
        with storage_errors():
            await self._pool.execute(_SQL["forget_idempotency_keys"], older_than_seconds)

    async def queued(self, at_most: int) -> int:
        """How many runs wait, counted up to ``at_most``."""
        with storage_errors():
            return await self._pool.fetchval(_SQL["queued"], at_most)

    # ---- drive ----

    async def claim(
        self, limit: int, lease_seconds: float, driven: Iterable[str] = (), closed: Iterable[Provider] = ()
    ) -> list[Lease]:
        """Runs that need a driver, leased to us. Empty when there are none; never the same run twice while a lease holds.

        ``driven``: runs the caller drives already; their lapsed leases are renewed, not taken. ``closed``: providers whose
        runs stay where they are as far as they have to be placed.
        """
        with storage_errors():
            ageing = self._ageing
            if self._caps.are_set:
                asked = Asked(limit, lease_seconds, list(driven), list(closed))
                async with self._pool.acquire() as connection, connection.transaction():
                    return await claim_within(connection, self._caps, ageing, asked)
            rows = await self._pool.fetch(
                _SQL["claim"], limit, lease_seconds, list(driven), list(closed), ageing.seconds, ageing.most
            )
        return [Lease(row["run_id"], row["lease_token"]) for row in rows]

    async def renew(self, leases: Sequence[Lease], lease_seconds: float) -> set[str]:
        """Prolong our leases by one statement. Returns the runs that are still ours."""
        with storage_errors():
            rows = await self._pool.fetch(
                _SQL["renew"], [each.run_id for each in leases], [each.token for each in leases], lease_seconds
            )
        return {row["run_id"] for row in rows}

    async def let_go(self, lease: Lease, after_seconds: float = 0, waits_at: str | None = None) -> None:
        """Hand a run back to whoever claims it next, at once or after a while. ``waits_at``: it waits for that executor."""
        with storage_errors():
            await self._pool.execute(_SQL["let_go"], lease.run_id, lease.token, after_seconds, waits_at)
        if not after_seconds:
            self._tell(Channel.WORK, "")

    async def next_attempt(self, lease: Lease, at: Placement) -> int | None:
        """Write the next attempt before its executor hears of it. None: no longer ours, over, or about to be stopped."""
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_SQL["hold_lease"], lease.run_id, lease.token)
                attempt = await connection.fetchval(
                    _SQL["next_attempt"], lease.run_id, lease.token, at.executor_id, at.instance, at.url
                )
                if attempt is not None and attempt > 1:
                    await connection.execute(_SQL["carry_replies"], lease.run_id, attempt, _NO_WORK)
                    await connection.execute(_SQL["carry_messages"], lease.run_id, attempt, _NO_WORK)
                return attempt

    async def withdraw_attempt(self, lease: Lease, attempt: int) -> None:
        """Forget an attempt that certainly never started."""
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(_SQL["hold_lease"], lease.run_id, lease.token)
                await connection.execute(_SQL["withdraw_attempt"], lease.run_id, lease.token, attempt)

    async def driven(self, run_id: str) -> DrivenRun:
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["driven"], run_id, self._ageing.seconds, self._ageing.most)
        if row is None:
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        return _driven(row)

    async def with_intents(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these runs that have a stop, a reply, a message or a parking to deliver."""
        with storage_errors():
            return {row["run_id"] for row in await self._pool.fetch(_SQL["intents"], list(run_ids))}

    async def interrupted(self, by: str | None) -> list[tuple[str, str]]:
        """Runs to stop, each with the later run in its workspace that interrupts it; ``by`` None: in any workspace."""
        with storage_errors():
            return [(row["id"], row["by"]) for row in await self._pool.fetch(_SQL["interrupted"], by)]

    async def overdue(self, grace_seconds: float, queue_seconds: float) -> dict[str, Overdue]:
        """Running runs whose time was up more than ``grace_seconds`` ago, and runs that waited ``queue_seconds`` for nothing."""
        with storage_errors():
            rows = await self._pool.fetch(_SWEEPS["overdue"], grace_seconds, queue_seconds)
        return {row["id"]: Overdue(RunStatus(row["status"]), row["attempt"], row["waited_for"]) for row in rows}

    async def stuck(self, stop_seconds: float) -> list[Stuck]:
        """Runs that were asked to stop more than ``stop_seconds`` ago and are not over; not all at once, the oldest first."""
        with storage_errors():
            return [Stuck(*row) for row in await self._pool.fetch(_SWEEPS["stuck"], stop_seconds)]

    # ---- resume ----

    async def session_tail(self, session_id: str, app_id: str | None) -> Resumable | None:
        """The newest run of a session that left an engine session."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["session_tail"], session_id, app_id)
        if row is None:
            return None
        return Resumable(app_id, session_id, row["provider"], row["workspace_key"], row["engine_session"])

    async def follow(self, run: DrivenRun) -> DrivenRun:
        """The run as it goes on where its session, or the run it names, stands now; to be asked for before its first attempt.

        As it is where there is neither.
        """
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["follow"], run.run_id)
        return run if row is None else replace(run, resume_session=row["resume_session"])

    async def resumable(self, run_id: str) -> Resumable | None:
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["resumable_run"], run_id)
        return None if row is None else Resumable(**row)

    async def by_engine_session(self, engine_session: str, app_id: str | None) -> Resumable | None:
        """The newest run of the app that left it; ``app_id`` None: of any."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["by_engine_session"], engine_session, app_id)
        return None if row is None else Resumable(**row)

    # ---- read ----

    async def head(self, run_id: str) -> tuple[RunStatus, str | None, int] | None:
        """(status, app id, last cursor), or None."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["head"], run_id)
        return None if row is None else (RunStatus(row["status"]), row["app_id"], row["last_cursor"])

    async def heads(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The last cursor of each of these runs."""
        with storage_errors():
            return {row["run_id"]: row["last_cursor"] for row in await self._pool.fetch(_SQL["heads"], list(run_ids))}

    async def snapshot(self, run_id: str) -> RunRow | None:
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["snapshot"], run_id, self._ageing.seconds, self._ageing.most)
        return None if row is None else _run_row(row)

    async def page(self, wanted: RunFilter, before: tuple[datetime, str] | None, limit: int) -> tuple[list[RunRow], bool]:
        """Newest first, from before (created_at, id), and whether more follow: also where fewer than ``limit`` are large."""
        at, run_id = before or (None, None)
        with storage_errors():
            rows = await self._pool.fetch(
                _SQL["list"], wanted.app_id, wanted.status, wanted.source, wanted.provider, wanted.session_id,
                wanted.created_from, wanted.created_to, at, run_id, limit + 1, LIST_BYTES,
            )  # fmt: skip
        shown = rows[:limit]
        return [_run_row(row) for row in shown], bool(shown) and len(shown) < shown[0]["found"]


def _same_body(row: Any, key: IdempotencyKey) -> str:
    if row["body_sha256"] != key.body_sha256:
        raise RunyardError(ErrorCode.IDEMPOTENCY_CONFLICT, "this Idempotency-Key came with another body before")
    return row["run_id"]


def _driven(row: Any) -> DrivenRun:
    placed = row["executor_id"] is not None
    return DrivenRun(
        run_id=row["id"], status=RunStatus(row["status"]), provider=Provider(row["provider"]), model=row["model"],
        workspace_key=row["workspace_key"], resume_session=row["resume_session"], engine_session=row["engine_session"],
        request=row["request"], profile=Profile.model_validate_json(row["profile"]) if row["profile"] else None,
        active_ms_left=row["active_ms_left"], stop_requested=row["stop_requested"],
        attempt=row["attempt"], executor_cursor=row["executor_cursor"],
        placement=Placement(row["executor_id"], row["executor_instance"], row["executor_url"]) if placed else None,
        attempt_started=row["attempt_started_at"] is not None, attempt_ended=row["attempt_ended"],
        is_to_park=row["is_to_park"],
        failures=row["failures"], lender=row["lender"], meets_breaker=row["meets_breaker"],
        stopping_seconds=row["stopping_seconds"], waits_at=row["waits_at"], awaited=tuple(row["awaited"]),
    )  # fmt: skip


def _run_row(row: Any) -> RunRow:
    outcome = row["outcome"]
    return RunRow(
        run_id=row["id"], status=RunStatus(row["status_text"]), last_cursor=row["last_cursor"], attempt=row["attempt"],
        claimed=row["claimed"], resting=row["resting"], source=row["source"], created_at=row["created_at"],
        source_ref=row["source_ref"], session_id=row["session_id"], app_id=row["app_id"], provider=row["provider"],
        model=row["model"], started_at=row["started_at"], finished_at=row["finished_at"], duration_ms=row["duration_ms"],
        stop_requested_at=row["stop_requested_at"], error_code=row["error_code"], error_message=row["error_message"],
        retryable=row["retryable"], exit_code=row["exit_code"], queue_position=row["queue_position"],
        next_attempt_at=row["next_attempt_at"],
        expected_wait_ms=round(row["expected_wait_ms"]) if row["expected_wait_ms"] is not None else None,
        engine_session=row["engine_session"], attempt_ended=row["attempt_ended_at"] is not None,
        outcome=json.loads(outcome) if outcome else None, metadata=json.loads(row["metadata"]),
    )  # fmt: skip
