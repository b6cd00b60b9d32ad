"""The executor's HTTP: parse, call one thing, answer. No decisions here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.responses import Response

from executor.adapters.base import Adapter
from executor.attempts.live_runs import LiveRuns
from executor.attempts.parking import park
from executor.attempts.prepare import Identity
from executor.attempts.registry import Attempt
from executor.attempts.runner import Runner
from executor.engines.credentials import CredentialStore
from executor.engines.readiness import Readiness
from executor.events.raw_output import read_raw
from executor.events.redaction import secrets_in
from executor.forgetting import Forgetting
from executor.workspaces.downloads import Produced, bundle_of, one_file, zipped
from executor.workspaces.known_workspaces import KnownWorkspaces
from executor.workspaces.workspace import Workspace
from shared.clock import monotonic_ms
from shared.contracts.events import ExecutorEvent
from shared.contracts.interactions import RunReply
from shared.contracts.provider_runs import (
    MAX_FILE_CURSOR,
    WORKSPACE_KEY,
    ExecutorState,
    ForgetWorkspace,
    LeashRenewed,
    MessageTaken,
    ParkRun,
    ParkTaken,
    ProviderRun,
    ProviderRunAccepted,
    ProviderRunList,
    RenewLeash,
    ReplyTaken,
    StartProviderRun,
    StopTaken,
    UserMessage,
    WorkspaceFileList,
    WorkspaceForgotten,
)
from shared.contracts.providers import Provider, ProviderList
from shared.contracts.runs import LogRange
from shared.contracts.wire import Request
from shared.downloads import Download
from shared.errors import ErrorCode, RunyardError, invalid
from shared.sse import EventStream
from shared.web import Answer, Call, Operation, delete, get, post

HEARTBEAT_SECONDS = 2.0
MAX_LOG_RANGE = 1024 * 1024
RUN = "/provider-runs/{run_id}"
_E = ErrorCode
_PLAIN = {"content-type": "application/octet-stream", "x-content-type-options": "nosniff"}


class OfAttempt(Request):
    attempt: int | None = Field(default=None, ge=1, description="Default: the newest.")


class OfWorkspace(OfAttempt):
    workspace: str | None = Field(
        default=None, pattern=WORKSPACE_KEY, description="Its workspace's key: a run that was released has no other."
    )


class PageOfFiles(OfWorkspace):
    cursor: str | None = Field(default=None, max_length=MAX_FILE_CURSOR, description="The `nextCursor` of the page before.")


class FromCursor(OfAttempt):
    cursor: str | None = Field(default=None, description="Events after this; Last-Event-ID wins.")


class ByteRange(OfAttempt):
    byte_from: int = Field(default=0, ge=0)
    byte_to: int | None = Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class Executor:
    """What the routes speak for."""

    runs: LiveRuns
    readiness: Readiness
    identity: Identity
    slots: int
    workspaces: Path
    known_workspaces: KnownWorkspaces
    adapters: Mapping[Provider, Adapter]
    store: CredentialStore

    async def reasons_not_ready(self) -> list[str]:
        if self.runs.is_stopping:
            return ["the executor is stopping"]
        return ["the executor is draining"] if self.runs.is_draining else []

    def state(self) -> ExecutorState:
        return ExecutorState(
            executor_id=self.identity.executor_id,
            instance=self.identity.instance,
            clock_ms=monotonic_ms(),
            slots=self.slots,
            live=len(self.runs.live()),
            draining=self.runs.is_draining,
            providers=self.readiness.all(),
            workspaces=self.known_workspaces.keys(),
        )

    def attempt(self, call: Call[Any]) -> Attempt:
        return self.runs.find(call.path["run_id"], call.query.attempt)

    def workspace(self, call: Call[Any]) -> tuple[Workspace, tuple[str, ...]]:
        """Where a run's files are, and what no file may show. Raises ``not_found``."""
        key: str | None = call.query.workspace
        workspace = Workspace.at(self.workspaces, key) if key is not None else self.attempt(call).workspace
        if not workspace.work.is_dir():
            raise RunyardError(ErrorCode.NOT_FOUND, "its workspace is no longer here")
        own = [value for each in self.adapters.values() for value in self.store.sign_in(each.credentials, {}).values()]
        return workspace, (*secrets_in(own), *self.runs.secrets_of(workspace.base.name))

    def runner(self, call: Call[Any]) -> Runner:
        """Of an attempt of this life; it says itself what it still takes. Raises ``conflict`` for one of an earlier life."""
        attempt = self.attempt(call)
        if attempt.runner is None:
            raise RunyardError(ErrorCode.CONFLICT, "the attempt has ended")
        return attempt.runner


def executor_routes(executor: Executor) -> tuple[Operation, ...]:
    return (*_lifecycle(executor), *_conversation(executor), *_left_behind(executor), *_about(executor))


def _lifecycle(executor: Executor) -> tuple[Operation, ...]:
    async def start(call: Call[StartProviderRun]) -> Answer:
        accepted, is_new = executor.runs.start(call.body)
        executor.known_workspaces.used(call.body.workspace.key)
        return Answer(accepted, status=201 if is_new else 200)

    async def stop(call: Call[None]) -> Answer:
        return Answer(executor.runs.stop(call.path["run_id"], call.query.attempt))

    async def renew(call: Call[RenewLeash]) -> Answer:
        return Answer(executor.runs.renew(call.body))

    async def release(call: Call[None]) -> Answer:
        executor.runs.release(call.path["run_id"], call.query.attempt)
        return Answer()

    refusals = (
        _E.INVALID_REQUEST, _E.CONFLICT, _E.QUEUE_FULL, _E.CAPABILITY_UNAVAILABLE, _E.ENGINE_NOT_FOUND, _E.AUTH_MISSING,
        _E.WORKSPACE_ERROR,
    )  # fmt: skip
    return (
        post("/provider-runs/start", start, body=StartProviderRun, returns=ProviderRunAccepted, status=201, errors=refusals,
             also={200: "It was started before."}, summary="Start one attempt; the same again answers the same."),
        post("/provider-runs/renew", renew, body=RenewLeash, returns=LeashRenewed, summary="Renew the leash of many attempts."),
        post(f"{RUN}/stop", stop, query=OfAttempt, returns=StopTaken, errors=(_E.CONFLICT,),
             summary="Ask an attempt to end; attempt.ended follows."),
        delete(RUN, release, query=OfAttempt, status=204, errors=(_E.CONFLICT,),
               summary="Release an ended run: its journals go, its workspace stays."),
    )  # fmt: skip


def _conversation(executor: Executor) -> tuple[Operation, ...]:
    async def stream(call: Call[None]) -> Response:
        tail = executor.attempt(call).tail
        after = _cursor(call.headers.get("last-event-id") or call.query.cursor)
        if after > tail.journal.count:
            raise RunyardError(ErrorCode.CONFLICT, f"cursor {after} is beyond the log, which ends at {tail.journal.count}")
        return EventStream(tail.follow(after), HEARTBEAT_SECONDS)

    async def reply(call: Call[RunReply]) -> Answer:
        attempt, body = executor.attempt(call), call.body
        is_repeat = executor.runner(call).reply(body.question_id, body)
        return Answer(
            ReplyTaken(run_id=attempt.run_id, attempt=attempt.number, question_id=body.question_id, duplicate=is_repeat)
        )

    async def message(call: Call[UserMessage]) -> Answer:
        attempt, body = executor.attempt(call), call.body
        is_repeat = executor.runner(call).message(body.message_id, body.text)
        return Answer(
            MessageTaken(run_id=attempt.run_id, attempt=attempt.number, message_id=body.message_id, duplicate=is_repeat)
        )

    async def end_waiting(call: Call[ParkRun]) -> Answer:
        attempt = executor.attempt(call)
        able = executor.adapters[Provider(attempt.journal.head.provider)].capabilities
        return Answer(park(attempt, call.body.question_ids, able))

    return (
        get(f"{RUN}/stream", stream, query=FromCursor, streams=ExecutorEvent, errors=(_E.NOT_FOUND, _E.CONFLICT),
            summary="Replay and follow the events of an attempt."),
        post(f"{RUN}/human-loop/reply", reply, body=RunReply, query=OfAttempt, returns=ReplyTaken,
             errors=(_E.NOT_FOUND, _E.CONFLICT), summary="Answer a question; idempotent per questionId."),
        post(f"{RUN}/messages", message, body=UserMessage, query=OfAttempt, returns=MessageTaken,
             errors=(_E.NOT_FOUND, _E.CONFLICT, _E.CAPABILITY_UNAVAILABLE), summary="A further user message into the live run."),
        post(f"{RUN}/park", end_waiting, body=ParkRun, query=OfAttempt, returns=ParkTaken,
             errors=(_E.NOT_FOUND, _E.CONFLICT, _E.CAPABILITY_UNAVAILABLE),
             summary="End an engine that waits for a person; attempt.ended follows, its questions stay open."),
    )  # fmt: skip


def _left_behind(executor: Executor) -> tuple[Operation, ...]:
    async def logs(call: Call[None]) -> Answer:
        name = call.path["stream"]
        if name not in ("stdout", "stderr"):
            raise RunyardError(ErrorCode.NOT_FOUND, "streams are stdout and stderr")
        attempt, first = executor.attempt(call), call.query.byte_from
        last = min(first + MAX_LOG_RANGE, call.query.byte_to if call.query.byte_to is not None else first + MAX_LOG_RANGE)
        return Answer(await asyncio.to_thread(read_raw, attempt.journal, name, first, last))

    missing = (_E.NOT_FOUND, _E.CONFLICT)
    return (
        get(f"{RUN}/logs/{{stream}}", logs, query=ByteRange, returns=LogRange, errors=missing, summary="Raw output."),
        *_files(executor),
    )


def _files(executor: Executor) -> tuple[Operation, ...]:
    async def files(call: Call[None]) -> Answer:
        workspace, _ = executor.workspace(call)
        return Answer(await asyncio.to_thread(workspace.files, call.query.cursor))

    async def file(call: Call[None]) -> Response:
        workspace, secrets = executor.workspace(call)
        opened = await asyncio.to_thread(workspace.open, call.path["path"])
        return Download(Produced(one_file(opened, secrets), opened), _PLAIN | {"content-length": str(opened.size)})

    async def bundle(call: Call[None]) -> Response:
        workspace, secrets = executor.workspace(call)
        listed = await asyncio.to_thread(bundle_of, workspace)
        return Download(Produced(zipped(workspace, listed, secrets)), _PLAIN | {"content-type": "application/zip"})

    missing = (_E.NOT_FOUND, _E.CONFLICT)
    return (
        get(f"{RUN}/files", files, query=PageOfFiles, returns=WorkspaceFileList, errors=missing, summary="Its files."),
        get(f"{RUN}/files/{{path:path}}", file, query=OfWorkspace, errors=missing, summary="One file."),
        get(f"{RUN}/bundle", bundle, query=OfWorkspace, errors=(*missing, _E.PAYLOAD_TOO_LARGE), summary="All files, as a zip."),
    )


def workspace_routes(forget: Forgetting, known: KnownWorkspaces) -> tuple[Operation, ...]:
    async def forget_one(call: Call[ForgetWorkspace]) -> Answer:
        forgotten = await forget(call.path["key"], call.body)
        if forgotten.status == "gone":
            known.gone(forgotten.workspace)
        return Answer(forgotten)

    return (
        post("/workspaces/{key}/forget", forget_one, body=ForgetWorkspace, returns=WorkspaceForgotten,
             errors=(_E.INVALID_REQUEST, _E.NOT_FOUND, _E.CONFLICT, _E.WORKSPACE_ERROR),
             summary="Delete a workspace and its snapshots: no run needs them any more."),
    )  # fmt: skip


def _about(executor: Executor) -> tuple[Operation, ...]:
    async def show(call: Call[None]) -> Answer:
        return Answer(executor.attempt(call).snapshot())

    async def every(_call: Call[None]) -> Answer:
        return Answer(ProviderRunList(items=[attempt.snapshot() for attempt in executor.runs.all()]))

    async def providers(_call: Call[None]) -> Answer:
        return Answer(ProviderList(items=executor.readiness.all()))

    async def state(_call: Call[None]) -> Answer:
        return Answer(executor.state())

    async def drain(_call: Call[None]) -> Answer:
        executor.runs.rest(True)
        return Answer(executor.state())

    async def go_on(_call: Call[None]) -> Answer:
        executor.runs.rest(False)
        return Answer(executor.state())

    return (
        get("/provider-runs", every, returns=ProviderRunList, summary="Every attempt this executor knows."),
        get(RUN, show, query=OfAttempt, returns=ProviderRun, errors=(_E.NOT_FOUND, _E.CONFLICT), summary="One attempt."),
        get("/providers", providers, returns=ProviderList, summary="What can run here, and if not, why."),
        get("/executor", state, returns=ExecutorState, summary="Who this executor is, its load and its clock."),
        post("/executor/drain", drain, returns=ExecutorState, summary="Take no new attempt; what lives goes on to its end."),
        delete("/executor/drain", go_on, returns=ExecutorState, summary="Take attempts again."),
    )


def _cursor(given: str | None) -> int:
    if given is None:
        return 0
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise invalid("cursor", "give the number of the last event you have")
    return int(given)


def document_routes(described: Mapping[str, Any]) -> tuple[Operation, ...]:
    async def show(_call: Call[None]) -> Answer:
        return Answer(described)

    return (get("/openapi.json", show, access="open", summary="This API as OpenAPI 3.1."),)
