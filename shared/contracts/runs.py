"""Runs as callers start and see them under ``/api``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from shared.contracts.environment import RequestEnv
from shared.contracts.events import RunEvent, Usage
from shared.contracts.interactions import Interaction
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, ProviderName
from shared.contracts.retries import RetryPolicy
from shared.contracts.wire import WHOLE, Request, Wire, exactly_one_of

MAX_PROMPT_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024 - 128  # 16 KiB are stored; the rest is for what a retry writes beside it


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING_USER = "waiting_user"
    STOPPING = "stopping"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELED = "canceled"


TERMINAL = frozenset({RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.TIMEOUT, RunStatus.CANCELED})


class Phase(StrEnum):
    STARTING = "starting"
    WORKING = "working"
    WAITING_USER = "waiting_user"
    PARKED = "parked"
    STOPPING = "stopping"


class OnSessionBusy(StrEnum):
    """What a new run does while an earlier one in its workspace is not over: one run at a time works there, always.

    Runs share a workspace that have a session, or go on with one another by ``resumeRunId`` or ``resumeSessionId``.
    """

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


class StartRun(Request):
    """``POST /api/runs/start``."""

    model_config = exactly_one_of("prompt", "messages")

    provider: ProviderName | None = Field(default=None, description="Default: the profile's, else the setting.")
    model: str | None = Field(default=None, min_length=1, max_length=256)
    prompt: str | None = Field(default=None, min_length=1)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=1000)
    execution_profile: str | None = Field(default=None, max_length=128)
    engine_mode: EngineMode = EngineMode.ASK
    session_id: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")
    on_session_busy: OnSessionBusy = Field(
        default=OnSessionBusy.QUEUE,
        description="While an earlier run in the workspace (of the session, or of what is resumed) is not over: `queue` behind "
        "it, `reject` with 409, or `interrupt`: all earlier ones are stopped and this one follows.",
    )
    resume_run_id: str | None = Field(default=None, min_length=1, max_length=128)
    resume_session_id: str | None = Field(default=None, min_length=1, max_length=256)
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])
    tools: dict[str, bool] = Field(default_factory=dict[str, bool])
    env: RequestEnv = Field(default_factory=dict[str, str])
    require_human_loop: bool = False
    priority: Annotated[int, Field(ge=-100, le=100), WHOLE] = 0
    retry: RetryPolicy | None = Field(default=None, description="Further attempts at this run, should one fail.")
    metadata: dict[str, Any] = Field(
        default_factory=dict[str, Any], description=f"At most {MAX_METADATA_BYTES} bytes of JSON in UTF-8, as it is stored."
    )

    @model_validator(mode="after")
    def _has_one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self

    def conversation(self) -> list[Message]:
        return self.messages if self.messages is not None else [Message(content=self.prompt or "")]


class RunLinks(Wire):
    self_: str = Field(alias="self")
    stream: str
    events: str
    stop: str

    @classmethod
    def of(cls, run_id: str) -> RunLinks:
        base = f"/api/runs/{run_id}"
        return cls.model_validate({"self": base, **{name: f"{base}/{name}" for name in ("stream", "events", "stop")}})


class RunSnapshot(Wire):
    """``GET /api/runs/{runId}``. Why a run ended stands beside its status."""

    run_id: str
    attempt: int
    source: str
    source_ref: str | None = None
    app_id: str | None = None
    session_id: str | None = None
    provider: str | None = None
    model: str | None = None
    status: RunStatus
    phase: Phase | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    last_cursor: int
    queue_position: int | None = Field(default=None, description="Of a queued run, from 1: by priority, rise by waiting, age.")
    expected_wait_ms: int | None = Field(
        default=None,
        description="Its place in the line times the pace at which its provider's runs began lately. Null where none is known, "
        "and while a breaker or an earlier run in its workspace keeps it back; a cap makes it longer.",
    )
    next_attempt_at: datetime | None = Field(
        default=None, description="The last attempt failed in a way that can pass; another one follows not before then."
    )
    pending_questions: list[Interaction] = Field(default_factory=list[Interaction])
    error_code: str | None = None
    error_message: str | None = None
    retryable: bool | None = None
    exit_code: int | None = None
    hint: str | None = None
    stderr_tail: str | None = None
    result: Any = None
    usage: Usage | None = None
    resume_session_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])
    links: RunLinks


class RunAccepted(Wire):
    """The answer to a start; with ``?wait`` also what happened meanwhile."""

    run_id: str
    accepted: bool = True
    warnings: list[str] = Field(default_factory=list[str])
    status: RunStatus
    links: RunLinks
    snapshot: RunSnapshot | None = None
    events: list[RunEvent] | None = None


class RunList(Wire):
    items: list[RunSnapshot]
    next_cursor: str | None = None


class StopAnswer(Wire):
    run_id: str
    status: RunStatus
    stop_requested_at: datetime | None = None


class SendMessage(Request):
    """A further user message into a run that is not over."""

    text: str = Field(min_length=1)


class MessageAccepted(Wire):
    """The message is kept and will be handed to the run's engine; an event of the run tells when, or that it could not be."""

    run_id: str
    message_id: str
    status: Literal["pending", "delivered", "undeliverable"]
    created_at: datetime
    duplicate: bool = Field(default=False, description="The same Idempotency-Key had made it before.")


class LogRange(Wire):
    """Bytes [byteFrom, byteTo) of one stream of one attempt; ``totalBytes`` is what has been stored so far."""

    run_id: str
    attempt: int
    stream: str
    byte_from: int
    byte_to: int
    total_bytes: int
    gone_bytes: int = Field(default=0, description="So many of them, from the first on, are no longer kept.")
    text: str = Field(description="The bytes as UTF-8; what is not UTF-8 is replaced.")
    base64: str
