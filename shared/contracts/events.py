"""Everything that can happen in a run: one envelope, one closed table of payloads by kind.

Pydantic stands here because people meet these shapes; the hot path moves frames as bytes and reads only their header.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from shared.contracts.interactions import AskedTool, InteractionType, OnExpiry, Option
from shared.contracts.wire import Wire
from shared.errors import ErrorCode


class Kind(StrEnum):
    RUN_STATUS = "run.status"
    ATTEMPT_STARTED = "attempt.started"
    ATTEMPT_ENDED = "attempt.ended"
    ATTEMPT_LOST = "attempt.lost"
    SESSION_STARTED = "session.started"
    MESSAGE_DELTA = "message.delta"
    MESSAGE_COMPLETED = "message.completed"
    REASONING_DELTA = "reasoning.delta"
    REASONING_COMPLETED = "reasoning.completed"
    TOOL_STARTED = "tool.started"
    TOOL_COMPLETED = "tool.completed"
    PLAN_UPDATED = "plan.updated"
    INTERACTION_REQUESTED = "interaction.requested"
    INTERACTION_RESOLVED = "interaction.resolved"
    USAGE_UPDATED = "usage.updated"
    ARTIFACT_CREATED = "artifact.created"
    OUTPUT_REPAIRED = "output.repaired"
    RETRY_SCHEDULED = "retry.scheduled"
    DIAGNOSTIC = "diagnostic"
    RAW_STDOUT = "raw.stdout"
    RAW_STDERR = "raw.stderr"
    STREAM_GAP = "stream.gap"
    LOG = "log"
    SNAPSHOT = "snapshot"


class Payload(Wire):
    """The ``data`` of an event. Each kind has exactly one payload class."""

    KIND: ClassVar[Kind]


class RawRef(Wire):
    """Where the engine's own bytes stand that an event was made from: [byteFrom, byteTo) of one stream of one attempt."""

    attempt: int
    stream: str
    byte_from: int
    byte_to: int


class Usage(Wire):
    """Tokens and cost of one attempt, never the engine's cumulative figure."""

    input_tokens: int = 0
    cached_input_tokens: int | None = None
    output_tokens: int = 0
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    estimated: bool | None = Field(default=None, description="The cost comes from our price table, not from the engine.")


MAX_TIMEOUT_MS = 86_400_000


class LimitRules(Wire):
    """What set the limits beside `runMs`: an option of the request, or the default."""

    idle_ms: str = "default"
    first_event_ms: str = "default"
    interaction_ms: str = "default"


class Timeouts(Wire):
    """Limits of an attempt in milliseconds, and which rule set them. Time spent waiting for a person is in none but its own."""

    run_ms: int = Field(default=1_800_000, ge=1, le=MAX_TIMEOUT_MS, description="How long it may work.")
    idle_ms: int = Field(default=120_000, ge=1, le=MAX_TIMEOUT_MS, description="How long its engine may be silent.")
    first_event_ms: int = Field(
        default=120_000,
        ge=1,
        le=MAX_TIMEOUT_MS,
        description="Until when its engine must have told an event; raw lines are none.",
    )
    interaction_ms: int | None = Field(
        default=None, ge=1, description="How long a question stays open. The control plane holds this one, the executor does not."
    )
    stop_grace_ms: int = Field(default=5_000, ge=0, le=60_000)
    rule: str = Field(default="default", description="What set `runMs`; `default`: the manager is still to say.")
    rules: LimitRules = Field(default_factory=LimitRules)
    app_ms: int | None = Field(
        default=None, ge=1, le=MAX_TIMEOUT_MS, description="The app's `timeoutMs`: after the request's, before the table's."
    )


class RunStatusChanged(Payload):
    """Written by the control plane only; exactly one is terminal and nothing comes after it."""

    KIND = Kind.RUN_STATUS
    status: str
    phase: str | None = None
    reason: str | None = Field(default=None, description="The signal that moved the run.")
    detail: str | None = Field(default=None, description="Text for people and old clients, e.g. `finish_reason:error`.")
    error_code: ErrorCode | None = None
    error_message: str | None = None
    retryable: bool | None = None
    hint: str | None = None
    exit_code: int | None = None
    usage: Usage | None = None
    result: Any = None


class EventRef(Wire):
    """An event of a run."""

    run_id: str
    cursor: int


class Restored(Wire):
    """The snapshot an attempt began with, because the newest files are not on its executor."""

    executor_id: str = Field(description="Where the snapshot was taken.")
    run_id: str
    attempt: int
    cursor: int = Field(description="The last event of that run whose work is in the snapshot.")


class AttemptStarted(Payload):
    KIND = Kind.ATTEMPT_STARTED
    executor_id: str
    instance: str
    provider: str
    engine_version: str | None = None
    sandbox: str = Field(description="How the process tree is contained, e.g. `session+subreaper`; never weaker than asked.")
    timeouts: Timeouts
    resumed: bool = False
    restored: Restored | None = Field(default=None, description="Its files and session came from a snapshot.")
    lost_from: EventRef | None = Field(
        default=None, description="The work of this event and all that followed is not in its files; none: nothing is lost."
    )


class AttemptOutcome(StrEnum):
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    LOST = "lost"
    PARKED = "parked"  # its run waits for a person, and has given its process back until the reply


class AttemptEnded(Payload):
    """The executor's last word on an attempt: its process tree is gone."""

    KIND = Kind.ATTEMPT_ENDED
    outcome: AttemptOutcome
    error_code: ErrorCode | None = None
    error_message: str | None = None
    exit_code: int | None = None
    usage: Usage | None = None
    result: Any = Field(default=None, description="The engine's own final value: its answer's text, or JSON.")
    stderr_tail: str | None = None
    retry_after_ms: int | None = Field(default=None, ge=0, description="How long the model asked to be left alone, where it did.")
    active_ms: int = Field(default=0, description="Time the engine worked; time spent waiting for a person is not in it.")


class AttemptLost(Payload):
    """The control plane's word when an executor no longer answers for an attempt."""

    KIND = Kind.ATTEMPT_LOST
    executor_id: str | None = None
    reason: str
    executor_cursor: int = 0


class SessionStarted(Payload):
    KIND = Kind.SESSION_STARTED
    engine_session: str = Field(description="The engine's own handle; what a later run resumes from.")


class Said(Payload):
    """Base of what a model says and does."""

    parent_tool_id: str | None = Field(
        default=None, description="The tool call whose sub-agent this is of; what a sub-agent says is never the answer."
    )


class MessageDelta(Said):
    KIND = Kind.MESSAGE_DELTA
    message_id: str
    text: str


class MessageCompleted(Said):
    KIND = Kind.MESSAGE_COMPLETED
    message_id: str
    text: str
    final: bool = Field(default=False, description="This message is the answer.")


class ReasoningDelta(Said):
    KIND = Kind.REASONING_DELTA
    message_id: str
    text: str


class ReasoningCompleted(Said):
    KIND = Kind.REASONING_COMPLETED
    message_id: str
    text: str


class ToolStarted(Said):
    KIND = Kind.TOOL_STARTED
    tool_id: str
    name: str
    input: Any = None
    truncated: bool | None = None


class ToolCompleted(Said):
    KIND = Kind.TOOL_COMPLETED
    tool_id: str
    name: str
    status: Literal["completed", "failed", "declined", "canceled"]
    output: Any = None
    truncated: bool | None = None
    exit_code: int | None = None


class PlanItem(Wire):
    text: str
    status: Literal["pending", "in_progress", "completed"] = "pending"


class PlanUpdated(Payload):
    KIND = Kind.PLAN_UPDATED
    items: list[PlanItem]


class InteractionRequested(Payload):
    KIND = Kind.INTERACTION_REQUESTED
    question_id: str = Field(description="Ours, unique in the run; never the engine's.")
    type: InteractionType
    prompt: str
    options: list[Option] = Field(default_factory=list[Option])
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    tool: AskedTool | None = None
    expires_at: datetime | None = None
    on_expiry: OnExpiry | None = None
    expiry_answer: str | None = Field(
        default=None, description="With `onExpiry: answer`: what is answered if nobody does in time."
    )


class InteractionResolved(Payload):
    KIND = Kind.INTERACTION_RESOLVED
    question_id: str
    how: Literal["answered", "expired", "withdrawn"]
    answer: dict[str, Any] | None = None
    answered_by: str | None = Field(
        default=None, description="A user, a key, or `expiry`: nobody did, and a default was declared."
    )


class UsageUpdated(Payload):
    KIND = Kind.USAGE_UPDATED
    usage: Usage


class ArtifactCreated(Payload):
    """A file of the run was kept. No run tells it yet."""

    KIND = Kind.ARTIFACT_CREATED
    path: str
    bytes: int
    sha256: str | None = None


class OutputRepaired(Payload):
    """The answer was not of the form asked for, and was made so. No run tells it yet: one that does not fit ends its run."""

    KIND = Kind.OUTPUT_REPAIRED
    how: str


class RetryScheduled(Payload):
    """The engine, or we, try again, and why. Ours is the next attempt of the run; until `at` no executor holds a place for it."""

    KIND = Kind.RETRY_SCHEDULED
    by: Literal["engine", "runyard"]
    reason: str
    error_code: ErrorCode | None = None
    attempt: int | None = Field(default=None, description="By the engine: its own count; by us: the attempt that follows.")
    delay_ms: int | None = None
    at: datetime | None = Field(default=None, description="When at the earliest, where we try again.")


class Diagnostic(Payload):
    KIND = Kind.DIAGNOSTIC
    code: str
    severity: Literal["info", "warning", "error"] = "warning"
    message: str


class RawStdout(Payload):
    KIND = Kind.RAW_STDOUT
    text: str
    truncated: bool | None = None


class RawStderr(Payload):
    KIND = Kind.RAW_STDERR
    text: str
    truncated: bool | None = None


class StreamGap(Payload):
    """Trimmed history: the cursors [from, to] are no longer kept. Its SSE id is ``to``."""

    KIND = Kind.STREAM_GAP
    from_: int = Field(alias="from")
    to: int


class Log(Payload):
    """Raw engine output on the way from the executor to the store; callers never see it as an event."""

    KIND = Kind.LOG
    stream: str
    byte_from: int
    base64: str


class SnapshotTaken(Payload):
    """Workspace and engine session, as they stood at this frame, are in the snapshot store. No event that callers see."""

    KIND = Kind.SNAPSHOT
    sha256: str
    bytes: int
    path: str = Field(description="Where the workspace stood; a session goes on at the same path only.")
    engine_session: str | None = None


PAYLOADS: Mapping[Kind, type[Payload]] = MappingProxyType({
    payload.KIND: payload
    for payload in (
        RunStatusChanged, AttemptStarted, AttemptEnded, AttemptLost, SessionStarted, MessageDelta, MessageCompleted,
        ReasoningDelta, ReasoningCompleted, ToolStarted, ToolCompleted, PlanUpdated, InteractionRequested,
        InteractionResolved, UsageUpdated, ArtifactCreated, OutputRepaired, RetryScheduled, Diagnostic, RawStdout,
        RawStderr, StreamGap, Log, SnapshotTaken,
    )
})  # fmt: skip


class RunEvent(Wire):
    """An event as it is stored and shown: ``data:`` of every SSE frame of a run."""

    cursor: int = Field(ge=1, description="Position in the run's log; dense, from 1; the SSE id.")
    run_id: str
    attempt: int = Field(ge=0, description="0 for what happened before the first attempt.")
    at: datetime
    kind: Kind
    data: dict[str, Any] = Field(description="The payload of this kind; see the schemas by kind.")
    raw_ref: RawRef | None = None


class ExecutorEvent(Wire):
    """An event as the executor sends it; its own dense number per attempt is the SSE id of that hop."""

    executor_cursor: int = Field(ge=1)
    run_id: str
    attempt: int = Field(ge=1)
    at: datetime
    kind: Kind
    data: dict[str, Any]
    raw_ref: RawRef | None = None


class EventPage(Wire):
    items: list[RunEvent]
    next_cursor: str | None = Field(default=None, description="Pass as `after` for the next page; null at the end.")
