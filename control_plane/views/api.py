"""How ``/api`` shows a run and its events. A frame is encoded once and shared by all its readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from control_plane.domain.run import RunRow
from shared.contracts.events import Usage
from shared.contracts.interactions import Interaction
from shared.contracts.runs import TERMINAL, Phase, RunAccepted, RunLinks, RunSnapshot, RunStatus
from shared.errors import ERRORS, ErrorCode
from shared.sse import encode


class Event(Protocol):
    """An event as it was stored; ``data`` and ``raw_ref`` are JSON text."""

    @property
    def cursor(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def data(self) -> str: ...
    @property
    def raw_ref(self) -> str | None: ...


def event_json(run_id: str, event: Event) -> str:
    """The envelope of one event; its payload is not parsed on the way."""
    at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    raw_ref = f',"rawRef":{event.raw_ref}' if event.raw_ref else ""
    return (
        f'{{"cursor":{event.cursor},"runId":"{run_id}","attempt":{event.attempt},"at":"{at}",'
        f'"kind":"{event.kind}","data":{event.data}{raw_ref}}}'
    )


def frame(run_id: str, event: Event) -> bytes:
    return encode(event.cursor, event.kind, event_json(run_id, event).encode())


def frames(run_id: str, events: Iterable[Event]) -> bytes:
    return b"".join(frame(run_id, event) for event in events)


def events_json(run_id: str, events: Iterable[Event]) -> str:
    """A list of events, each the same text as in a stream: nothing is decoded, so a kind of a newer writer passes too."""
    return f"[{','.join(event_json(run_id, event) for event in events)}]"


def event_page(run_id: str, events: Iterable[Event], following: int | None) -> str:
    """An ``EventPage``; ``following``: the cursor its next page begins after."""
    place = "null" if following is None else f'"{following}"'
    return f'{{"items":{events_json(run_id, events)},"nextCursor":{place}}}'


def with_events(accepted: RunAccepted, events: Iterable[Event]) -> str:
    """The answer to a start that waited."""
    head = accepted.model_dump_json(by_alias=True, exclude={"events"}).removesuffix("}")
    return f'{head},"events":{events_json(accepted.run_id, events)}}}'


def snapshot(run: RunRow, pending: Sequence[Interaction] = ()) -> RunSnapshot:
    outcome = run.outcome or {}
    return RunSnapshot(
        run_id=run.run_id, attempt=run.attempt, source=run.source, source_ref=run.source_ref, app_id=run.app_id,
        session_id=run.session_id, provider=run.provider, model=run.model, status=run.status, phase=phase(run),
        created_at=run.created_at, started_at=run.started_at, finished_at=run.finished_at, duration_ms=run.duration_ms,
        last_cursor=run.last_cursor, queue_position=run.queue_position, next_attempt_at=run.next_attempt_at,
        expected_wait_ms=run.expected_wait_ms,
        pending_questions=list(pending),
        error_code=run.error_code, error_message=run.error_message, retryable=run.retryable, exit_code=run.exit_code,
        hint=ERRORS[ErrorCode(run.error_code)].hint if run.error_code else None, stderr_tail=outcome.get("stderrTail"),
        result=outcome.get("result") if run.status is RunStatus.SUCCESS else None,
        usage=Usage.model_validate(outcome["usage"]) if outcome.get("usage") else None,
        resume_session_id=run.engine_session, metadata=dict(run.metadata), links=RunLinks.of(run.run_id),
    )  # fmt: skip


def phase(run: RunRow) -> Phase | None:
    """What a living run is doing; None for a finished one."""
    if run.status in TERMINAL:
        return None
    if run.status is RunStatus.WAITING_USER:
        return Phase.PARKED if run.resting else Phase.WAITING_USER
    if run.status is RunStatus.STOPPING:
        return Phase.STOPPING
    return Phase.WORKING if run.status is RunStatus.RUNNING and not run.attempt_ended else Phase.STARTING
