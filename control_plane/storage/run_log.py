"""The one writer of event logs, statuses and heads: all runs of a window in one transaction.

Nothing else appends an event or moves a status. Nothing is shown to a reader before its commit.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import random
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from control_plane.domain.lifecycle import IllegalTransition
from control_plane.domain.news import FromExecutor, Hold, Locked, News, Settle, Told
from control_plane.domain.recording import Change, absorb
from control_plane.domain.retrying import Policy, Tried
from control_plane.storage.breakers import judge
from control_plane.storage.failures import lost_connection
from control_plane.storage.queries import load
from shared.contracts.events import Kind
from shared.contracts.runs import RunStatus
from shared.errors import ERRORS, ErrorCode

_SQL = load("log")
_SNAPSHOTS = load("snapshots")
_STATEMENT_SECONDS = 10
_MAY_HAVE_QUESTIONS = frozenset({RunStatus.WAITING_USER, RunStatus.STOPPING})

OnCommit = Callable[[Sequence[Change]], None]


@dataclass(frozen=True, slots=True)
class Write:
    """News of one run; a window holds each run once.

    ``lease_token`` None: a writer without a lease (a stop, the reaper), under the same lock.
    """

    run_id: str
    news: Sequence[News]
    lease_token: UUID | None = None


class Refused(Exception):
    """A run's rows cannot be made or the database refused them: a bug of ours or of an engine, no reason to hold up others."""

    def __init__(self, why: str, constraint: str | None = None) -> None:
        super().__init__(why if constraint is None else f"{why} ({constraint})")


class RunLog:
    """Every ``on_commit`` is told of every change, after its commit and before the writer goes on.

    ``chance`` gives numbers from 0 to 1, which spread the waits before further attempts.
    """

    def __init__(self, pool: asyncpg.Pool, on_commit: Sequence[OnCommit], chance: Callable[[], float] = random) -> None:
        self._pool = pool
        self._on_commit = on_commit
        self._chance = chance

    async def write(self, writes: Sequence[Write]) -> list[Change | None]:
        """One transaction for all; None where the lease is lost. The answers stand in the order of ``writes``.

        Raises ``RunyardError(storage_unavailable)`` when the database did not answer (whether it committed is then unknown:
        the same news may be written again) and ``Refused`` when it refused a row (nothing of the window is written).
        """
        try:
            with lost_connection():
                async with asyncio.timeout(_STATEMENT_SECONDS), self._pool.acquire() as connection, connection.transaction():
                    changes = await self._write(connection, writes)
        except asyncpg.PostgresError as error:
            raise Refused(type(error).__name__, error.constraint_name) from None  # its own text holds the row
        for tell in self._on_commit:
            tell([change for change in changes if change is not None and change.events])
        return changes

    async def _write(self, connection: Any, writes: Sequence[Write]) -> list[Change | None]:
        held = await connection.fetch(_SQL["lock_heads"], [each.run_id for each in writes], [each.lease_token for each in writes])
        locked = await self._locked(connection, [row["run_id"] for row in held], writes)
        changes = [_absorbed(locked[each.run_id], each.news) if each.run_id in locked else None for each in writes]
        absorbed = [(locked[change.run_id], change) for change in changes if change is not None]
        await _apply(connection, absorbed)
        await judge(connection, absorbed)
        return changes

    async def _locked(self, connection: Any, run_ids: list[str], writes: Sequence[Write]) -> dict[str, Locked]:
        rows = await connection.fetch(_SQL["read_locked"], run_ids)
        asking = {each.run_id for each in writes if any(_about_questions(news) for news in each.news)}
        inquire = [row["run_id"] for row in rows if _may_have_questions(row) or row["run_id"] in asking]
        questions: dict[str, list[Any]] = defaultdict(list)
        if inquire:
            for row in await connection.fetch(_SQL["open_questions"], inquire):
                questions[row["run_id"]].append(row)
        messages = await self._waiting_messages(connection, run_ids, writes)
        return {row["run_id"]: _locked(row, questions[row["run_id"]], messages[row["run_id"]], self._chance()) for row in rows}

    async def _waiting_messages(
        self, connection: Any, run_ids: list[str], writes: Sequence[Write]
    ) -> Mapping[str, Sequence[str]]:
        """Of the runs whose news may settle a message: by name, or by ending the run."""
        telling = {each.run_id for each in writes if any(_may_settle_messages(news) for news in each.news)}
        found: dict[str, list[str]] = defaultdict(list)
        if asked := [run_id for run_id in run_ids if run_id in telling]:
            for row in await connection.fetch(_SQL["waiting_messages"], asked):
                found[row["run_id"]].append(row["message_id"])
        return found


# What news can be that no executor should send, and no code of ours should make.
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, msgspec.MsgspecError, IllegalTransition)


def _absorbed(run: Locked, news: Sequence[News]) -> Change:
    try:
        return absorb(run, news)
    except _NONSENSE as error:
        raise Refused(f"news that make no sense: {type(error).__name__}") from error


def _may_have_questions(row: Any) -> bool:
    """A run whose attempt failed may have a reply that the next one is to be told."""
    return row["status"] in _MAY_HAVE_QUESTIONS or row["failures"] > 0


def _about_questions(news: News) -> bool:
    return isinstance(news, (Settle, Told)) or (isinstance(news, FromExecutor) and news.kind == Kind.INTERACTION_RESOLVED)


def _may_settle_messages(news: News) -> bool:
    """Whatever can end a run, and what names messages."""
    return not isinstance(news, Hold) and (not isinstance(news, FromExecutor) or news.kind == Kind.ATTEMPT_ENDED)


def _locked(row: Any, questions: Sequence[Any], messages: Sequence[str], chance: float) -> Locked:
    return Locked(
        run_id=row["run_id"], status=RunStatus(row["status"]), last_cursor=row["last_cursor"], attempt=row["attempt"],
        executor_cursor=row["executor_cursor"], now=row["now"], stop_reason=row["stop_reason"], stop_detail=row["stop_detail"],
        has_lease=bool(row["has_lease"]), attempt_living=row["attempt_living"],
        open_questions=frozenset(each["question_id"] for each in questions),
        answered=frozenset(each["question_id"] for each in questions if each["is_answered"]),
        answered_by={each["question_id"]: each["answered_by"] for each in questions},
        interaction_ms=row["interaction_ms"],
        on_expiry=row["on_expiry"],
        expiry_answer=row["expiry_answer"],
        messages=tuple(messages),
        has_session=row["has_session"],
        tried=Tried(row["failures"], row["crashes"], row["unbegun"], row["acted"], row["active_ms_left"]),
        policy=Policy(row["max_attempts"], row["retry_after_side_effects"]),
        lender=row["lender"],
        provider=row["provider"] or "",
        is_watched=row["is_watched"],
        is_trying=row["is_trying"],
        held=row["held"],
        chance=chance,
    )  # fmt: skip


async def _apply(connection: Any, changes: Sequence[tuple[Locked, Change]]) -> None:
    """The rows of all changes: the frequent ones by one statement for all runs, the rare ones one by one."""
    await _append_raw(connection, changes)
    for run, change in changes:
        await _apply_rare(connection, run, change)
    await _move_runs(connection, [change for _, change in changes if change.moved])
    await _write_window(connection, changes)


def _touches_head(run: Locked, change: Change) -> bool:
    moved_on = (change.last_cursor, change.executor_cursor) != (run.last_cursor, run.executor_cursor)
    return moved_on or change.ended or change.parked


async def _write_window(connection: Any, changes: Sequence[tuple[Locked, Change]]) -> None:
    events = [
        (change.run_id, event.cursor, event.attempt, event.kind, event.at, event.data, event.raw_ref)
        for _, change in changes
        for event in change.events
    ]
    heads = [
        (change.run_id, change.last_cursor, change.executor_cursor, change.ended or change.parked)
        for run, change in changes
        if _touches_head(run, change)
    ]
    if events or heads:
        await connection.execute(_SQL["write_window"], *_columns(events, 7), *_columns(heads, 4))


async def _append_raw(connection: Any, changes: Sequence[tuple[Locked, Change]]) -> None:
    rows = [(change.run_id, raw.attempt, raw.stream, raw.byte_from, raw.base64) for _, change in changes for raw in change.raw]
    await _many(connection, "append_raw", rows)


async def _move_runs(connection: Any, changes: Iterable[Change]) -> None:
    rows: list[tuple[Any, ...]] = []
    for change in changes:
        ending = change.ending
        code = ending.error_code if ending else None
        rows.append((
            change.run_id, change.status.value, change.ended, code, ending.error_message if ending else None,
            ERRORS[ErrorCode(code)].retryable if code else None, ending.exit_code if ending else None,
        ))  # fmt: skip
    await _many(connection, "move_runs", rows)


async def _many(connection: Any, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """One statement for all rows."""
    if rows:
        await connection.execute(_SQL[name], *_columns(rows, len(rows[0])))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Columns as arrays; so many of them even where there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


async def _apply_rare(connection: Any, run: Locked, change: Change) -> None:
    run_id, attempt = change.run_id, run.attempt
    if change.stop_reason is not None:
        await connection.execute(_SQL["ask_to_stop"], run_id, change.stop_reason, change.stop_detail)
    if change.run_ms is not None:
        await connection.execute(_SQL["begin_active_time"], run_id, change.run_ms)
    if change.accepted:
        await connection.execute(_SQL["set_accepted"], run_id, attempt)
        await connection.execute(_SQL["set_started"], run_id)
    await _apply_to_session(connection, attempt, change)
    await _apply_to_people(connection, attempt, change)
    await _apply_to_tries(connection, attempt, change)
    if change.hold_seconds is not None:
        await connection.execute(_SQL["hold"], run_id, change.hold_seconds)
    if change.outcome is not None:
        await connection.execute(_SQL["end_attempt"], run_id, attempt, change.outcome)
        await connection.execute(_SQL["rest_active_time"], run_id)


async def _apply_to_tries(connection: Any, attempt: int, change: Change) -> None:
    """What its attempts have done, and that another one follows."""
    run_id = change.run_id
    if change.acted:
        await connection.execute(_SQL["has_acted"], run_id)
    if change.again is not None:
        tried = change.again.tried
        counts = tried.failures, tried.crashes, tried.unbegun
        await connection.execute(_SQL["try_again"], run_id, *counts, change.again.delay_ms)
        if change.again.afresh:
            await connection.execute(_SQL["forget_session"], run_id, attempt)


async def _apply_to_session(connection: Any, attempt: int, change: Change) -> None:
    """What a later attempt goes on from."""
    if change.engine_session is not None:
        await connection.execute(_SQL["set_session"], change.run_id, attempt, change.engine_session)
    if change.snapshot is not None:
        kept, taken = change.snapshot, change.snapshot.taken
        await connection.execute(
            _SNAPSHOTS["keep_snapshot"], change.run_id, attempt, kept.executor_cursor, kept.cursor,
            taken.sha256, taken.bytes, taken.path, taken.engine_session,
        )  # fmt: skip


async def _apply_to_people(connection: Any, attempt: int, change: Change) -> None:
    """What was asked of people, and what became of what they said."""
    run_id = change.run_id
    for asked in change.asked:
        await connection.execute(
            _SQL["open_question"], run_id, asked.question_id, asked.attempt, asked.request, asked.expires_at, asked.on_expiry
        )
    for question_id, status in change.resolved.items():
        await connection.execute(_SQL["resolve_question"], run_id, question_id, status)
    for message_id, status in change.messages.items():
        await connection.execute(_SQL["settle_message"], run_id, message_id, status, attempt)
