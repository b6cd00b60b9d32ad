"""``/api/runs``: parse, call one use case, answer. No decisions here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from pydantic.config import JsonDict
from starlette.responses import Response

from control_plane.domain.run import RunFilter
from control_plane.runs.control import StopRun
from control_plane.runs.create import CreateRun, RetryRun
from control_plane.runs.read import ReadRun
from control_plane.views.api import with_events
from control_plane.views.positions import NO_PLACE, run_cursor
from shared.contracts.events import EventPage, RunEvent
from shared.contracts.providers import ProviderName, provider_named
from shared.contracts.runs import LogRange, RunAccepted, RunLinks, RunList, RunSnapshot, RunStatus, StartRun, StopAnswer
from shared.contracts.wire import Request
from shared.errors import ErrorCode, RunyardError
from shared.sse import Blocks, EventStream
from shared.web import Answer, Call, Operation, get, post

HEARTBEAT_SECONDS = 15.0
RETRY_MS = 1000
MAX_START_BYTES = 4 * 1024 * 1024  # the prompt's own limit is checked by the use case


_DATE = re.compile(r"\d{4}-\d\d-\d\d")
CURSOR: JsonDict = {"pattern": "^[0-9]{1,18}$"}  # told to callers; what breaks it is 400, like a cursor beyond the log
RESUME = {"Last-Event-ID": {**CURSOR, "description": "The last cursor this reader has seen; wins over `cursor`."}}
REPEAT = {
    "Idempotency-Key": {"pattern": "^[ -~]{1,255}$", "description": "The same key and body are the same run, for 24 hours."}
}


def _written_out(value: object) -> object:
    """A bare number is no instant: whether it counts seconds or milliseconds would be a guess."""
    if isinstance(value, str) and not _DATE.match(value):
        raise ValueError("write an instant as 2026-01-31T12:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written_out)]


def _known(name: str) -> str:
    try:
        return provider_named(name)
    except RunyardError as error:
        raise ValueError(error.detail) from None


class StartQuery(Request):
    wait: float | None = Field(default=None, ge=0, le=300, description="Seconds to wait for the end before answering.")


class ListQuery(Request):
    status: RunStatus | None = None
    source: str | None = Field(default=None, max_length=128)
    provider: Annotated[ProviderName, AfterValidator(_known)] | None = None
    app_id: str | None = Field(default=None, max_length=64)
    session_id: str | None = Field(default=None, max_length=128)
    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None
    cursor: str | None = Field(default=None, max_length=512)
    limit: int = Field(default=50, ge=1, le=500)


class StreamQuery(Request):
    cursor: str | None = Field(
        default=None, max_length=32, json_schema_extra=CURSOR, description="Resume after this cursor; the header wins."
    )
    view: Literal["events", "workbench"] = Field(
        default="events", description="`workbench`: the flat frames of the provider-runtime record, with the same ids."
    )


class EventsQuery(Request):
    after: str | None = Field(default=None, max_length=32, json_schema_extra=CURSOR)
    before: str | None = Field(default=None, max_length=32, json_schema_extra=CURSOR)
    limit: int = Field(default=500, ge=1, le=5000)


class LogQuery(Request):
    byte_from: int = Field(default=0, ge=0, le=2**53)
    byte_to: int | None = Field(default=None, ge=0, le=2**53)
    attempt: int | None = Field(default=None, ge=1, le=2**31 - 1)


def run_routes(create: CreateRun, retry: RetryRun, read: ReadRun, stop: StopRun) -> tuple[Operation, ...]:
    starting = _Starting(create, retry, read)
    reading = _Reading(read)

    async def stop_run(call: Call[None]) -> Answer:
        return Answer(await stop(call.path["run_id"], call.caller))

    one, e = "/api/runs/{run_id}", ErrorCode
    refused = (e.PERMISSION_DENIED, e.IDEMPOTENCY_CONFLICT, e.QUEUE_FULL, e.AUTH_FAILED, e.SESSION_BUSY)
    return (
        post("/api/runs/start", starting.start, body=StartRun, query=StartQuery, returns=RunAccepted, streams=RunEvent,
             status=202, errors=refused, also={200: "With `wait`: what had become of it by then."}, headers=REPEAT,
             max_body_bytes=MAX_START_BYTES, summary="Start a run"),
        get("/api/runs", reading.page, query=ListQuery, returns=RunList, also=NO_PLACE, summary="Runs, newest first"),
        get(one, reading.show, returns=RunSnapshot, errors=(e.NOT_FOUND,), summary="A run as it stands"),
        get(f"{one}/stream", reading.stream, query=StreamQuery, streams=RunEvent, errors=(e.NOT_FOUND,), also=NO_PLACE,
            headers=RESUME, summary="Follow a run from any cursor to its end"),
        get(f"{one}/events", reading.events, query=EventsQuery, returns=EventPage, errors=(e.NOT_FOUND,), also=NO_PLACE,
            summary="A range of a run's events"),
        get(f"{one}/logs/{{stream}}", reading.log, query=LogQuery, returns=LogRange, errors=(e.NOT_FOUND,),
            summary="A range of the engine's raw output"),
        post(f"{one}/stop", stop_run, returns=StopAnswer, errors=(e.NOT_FOUND,), summary="Ask for the end; idempotent"),
        post(f"{one}/retry", starting.retry, returns=RunAccepted, status=202, errors=(e.NOT_FOUND, e.CONFLICT, *refused),
             headers=REPEAT, summary="The same request again, as a new run"),
    )  # fmt: skip


class _Starting:
    def __init__(self, create: CreateRun, retry: RetryRun, read: ReadRun) -> None:
        self._create = create
        self._retry = retry
        self._read = read

    async def start(self, call: Call[StartRun]) -> Answer | Response:
        run_id = await self._create(call.body, call.caller, call.headers.get("idempotency-key"))
        if "text/event-stream" in call.headers.get("accept", ""):
            return _streamed(await self._read.stream(run_id, call.caller, 0))
        wait: float | None = call.query.wait
        if wait is None:
            return _accepted(run_id)
        snapshot, events = await self._read.until_over(run_id, call.caller, wait)
        links = RunLinks.of(run_id)
        accepted = RunAccepted(run_id=run_id, status=snapshot.status, links=links, snapshot=snapshot)
        return Response(with_events(accepted, events), media_type="application/json")

    async def retry(self, call: Call[None]) -> Answer:
        return _accepted(await self._retry(call.path["run_id"], call.caller, call.headers.get("idempotency-key")))


def _accepted(run_id: str) -> Answer:
    """The same answer to every repeat with one idempotency key, whatever has become of the run meanwhile."""
    links = RunLinks.of(run_id)
    body = RunAccepted(run_id=run_id, status=RunStatus.QUEUED, links=links)
    shown = body.model_dump(mode="json", by_alias=True, exclude={"snapshot", "events"})
    return Answer(shown, headers={"location": links.self_})


class _Reading:
    def __init__(self, read: ReadRun) -> None:
        self._read = read

    async def page(self, call: Call[None]) -> Answer:
        query: ListQuery = call.query
        wanted = RunFilter(
            app_id=query.app_id if call.caller.admin else call.caller.app_id, status=query.status, source=query.source,
            provider=query.provider, session_id=query.session_id, created_from=query.from_, created_to=query.to,
        )  # fmt: skip
        return Answer(await self._read.page(wanted, query.cursor, query.limit))

    async def show(self, call: Call[None]) -> Answer:
        return Answer(await self._read.snapshot(call.path["run_id"], call.caller))

    async def stream(self, call: Call[None]) -> Response:
        query: StreamQuery = call.query
        cursor = run_cursor(call.headers.get("last-event-id") or query.cursor) or 0
        stream = self._read.flat_stream if query.view == "workbench" else self._read.stream
        return _streamed(await stream(call.path["run_id"], call.caller, cursor))

    async def events(self, call: Call[None]) -> Response:
        query: EventsQuery = call.query
        after, before = run_cursor(query.after) or 0, run_cursor(query.before)
        page = await self._read.event_page(call.path["run_id"], call.caller, after, before, query.limit)
        return Response(page, media_type="application/json")

    async def log(self, call: Call[None]) -> Answer:
        query: LogQuery = call.query
        stream: Literal["stdout", "stderr"] | Any = call.path["stream"]
        if stream not in ("stdout", "stderr"):
            raise RunyardError(ErrorCode.NOT_FOUND, "streams are stdout and stderr")
        return Answer(await self._read.log_range(
            call.path["run_id"], call.caller, stream, query.attempt, query.byte_from, query.byte_to
        ))  # fmt: skip


def _streamed(blocks: Blocks) -> EventStream:
    return EventStream(blocks, HEARTBEAT_SECONDS, RETRY_MS)
