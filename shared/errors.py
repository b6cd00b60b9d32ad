"""Why something failed: a closed list. One exception leaves a service; its code decides HTTP status, retry and title.

Rule 1. A new failure is a new row of ``ERRORS``, never a string elsewhere. «unknown» is a bug.
Rule 2. A detail never holds a secret, a prompt or a file's content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class ErrorCode(StrEnum):
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    CONFLICT = "conflict"
    SESSION_BUSY = "session_busy"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    CAPABILITY_UNAVAILABLE = "capability_unavailable"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    AUTH_MISSING = "auth_missing"
    AUTH_FAILED = "auth_failed"
    QUOTA_EXCEEDED = "quota_exceeded"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_OVERFLOW = "context_overflow"
    NETWORK_ERROR = "network_error"
    ENGINE_NOT_FOUND = "engine_not_found"
    ENGINE_START_FAILED = "engine_start_failed"
    ENGINE_EXIT_NONZERO = "engine_exit_nonzero"
    ENGINE_OOM = "engine_oom"
    ENGINE_NO_OUTPUT = "engine_no_output"
    ENGINE_PROTOCOL_ERROR = "engine_protocol_error"
    OUTPUT_LIMIT = "output_limit"
    OUTPUT_INVALID = "output_invalid"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    INTERACTION_EXPIRED = "interaction_expired"
    USER_CANCELED = "user_canceled"
    MODEL_UNAVAILABLE = "model_unavailable"
    EXECUTOR_LOST = "executor_lost"
    OWNER_LOST = "owner_lost"
    POISON_RUN = "poison_run"
    MANAGER_UNAVAILABLE = "manager_unavailable"
    WORKSPACE_ERROR = "workspace_error"
    SKILL_INVALID = "skill_invalid"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """HTTP status, whether the same request may succeed later, a title, and one line on what to do."""

    status: int
    retryable: bool
    title: str
    hint: str


_C = ErrorCode
ERRORS: Mapping[ErrorCode, ErrorRow] = MappingProxyType(
    {
        # the caller
        _C.INVALID_REQUEST: ErrorRow(422, False, "The request is not valid", "see errors[] for the fields"),
        _C.UNAUTHORIZED: ErrorRow(401, False, "No valid key came with the request", "send Authorization: Bearer <key>"),
        _C.PERMISSION_DENIED: ErrorRow(403, False, "The key may not do that", "use a key with the needed scope"),
        _C.NOT_FOUND: ErrorRow(404, False, "There is no such thing", "check the id and the key's app"),
        _C.PAYLOAD_TOO_LARGE: ErrorRow(413, False, "The request is too large", "send files as files, not in the prompt"),
        _C.CONFLICT: ErrorRow(409, False, "That cannot be done now", "read its status first"),
        _C.SESSION_BUSY: ErrorRow(
            409, True, "The workspace has a run that is not over", "wait for it, or send onSessionBusy: queue"
        ),
        _C.IDEMPOTENCY_CONFLICT: ErrorRow(422, False, "The idempotency key was used with another body", "use a new key"),
        _C.QUEUE_FULL: ErrorRow(429, True, "The queue is full", "try again after Retry-After"),
        _C.RATE_LIMITED: ErrorRow(429, True, "Too many requests", "wait, then try again"),
        _C.CAPABILITY_UNAVAILABLE: ErrorRow(409, False, "This provider cannot do that", "see the capability table"),
        # the engine and its model
        _C.PROVIDER_UNAVAILABLE: ErrorRow(503, True, "No executor can run this provider", "see GET /api/providers"),
        _C.AUTH_MISSING: ErrorRow(424, False, "The engine has no credentials", "set the provider's key on the executor"),
        _C.AUTH_FAILED: ErrorRow(424, False, "The model refused the credentials", "check the provider's key"),
        _C.QUOTA_EXCEEDED: ErrorRow(424, False, "The account's quota is used up", "raise the plan or use another key"),
        _C.MODEL_NOT_FOUND: ErrorRow(424, False, "The model does not exist for this key", "check the model's name"),
        _C.CONTEXT_OVERFLOW: ErrorRow(424, False, "The conversation is longer than the model allows", "start a new session"),
        _C.NETWORK_ERROR: ErrorRow(502, True, "The model endpoint could not be reached", "check base URL and network"),
        _C.MODEL_UNAVAILABLE: ErrorRow(502, True, "The model endpoint failed", "try again later"),
        _C.ENGINE_NOT_FOUND: ErrorRow(424, False, "The engine is not installed on the executor", "run runyard doctor"),
        _C.ENGINE_START_FAILED: ErrorRow(502, True, "The engine did not start", "see stderr of the attempt"),
        _C.ENGINE_EXIT_NONZERO: ErrorRow(502, True, "The engine ended without finishing", "see stderr of the attempt"),
        _C.ENGINE_OOM: ErrorRow(502, True, "The engine ran out of memory", "give the executor more memory"),
        _C.ENGINE_NO_OUTPUT: ErrorRow(502, True, "The engine gave no answer", "see the events of the attempt"),
        _C.ENGINE_PROTOCOL_ERROR: ErrorRow(502, True, "The engine broke its protocol", "check the engine's version"),
        _C.OUTPUT_LIMIT: ErrorRow(502, False, "The engine printed more than allowed", "raise the output quota"),
        _C.OUTPUT_INVALID: ErrorRow(502, True, "The answer does not fit its schema", "see the answer in the events"),
        # time and people
        _C.TIMEOUT: ErrorRow(504, True, "The run took longer than allowed", "raise providerOptions.timeoutMs, or make room"),
        _C.IDLE_TIMEOUT: ErrorRow(504, True, "The engine was silent for too long", "see the last events of the attempt"),
        _C.INTERACTION_EXPIRED: ErrorRow(504, False, "Nobody answered in time", "answer sooner, or set a default"),
        _C.USER_CANCELED: ErrorRow(409, False, "Someone stopped the run", "start it again"),
        # our own parts
        _C.EXECUTOR_LOST: ErrorRow(502, True, "The executor was lost while the engine ran", "start the run again"),
        _C.OWNER_LOST: ErrorRow(502, True, "The owner of the execution went silent", "check the reporting process"),
        _C.POISON_RUN: ErrorRow(502, False, "The run failed every attempt", "see its attempts"),
        _C.MANAGER_UNAVAILABLE: ErrorRow(503, True, "No executor manager answered", "see GET /api/system/readiness"),
        _C.WORKSPACE_ERROR: ErrorRow(502, True, "The workspace could not be used", "check the executor's disk"),
        _C.SKILL_INVALID: ErrorRow(422, False, "The skill package is not valid", "see the detail"),
        _C.STORAGE_UNAVAILABLE: ErrorRow(503, True, "The database did not answer", "try again"),
        _C.INTERNAL: ErrorRow(500, True, "Runyard failed", "report it with the request id"),
    }
)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One refused field: where it is (``metadata.color``) and why."""

    field: str
    message: str


@dataclass(slots=True)
class RunyardError(Exception):
    """The one exception that leaves a service.

    ``detail`` is for people; ``retry_after`` (seconds) becomes ``Retry-After``; ``extra`` are further members of the problem;
    ``status`` stands where a contract asks for another HTTP status than the table's.
    """

    code: ErrorCode
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    retry_after: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    status: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.detail or ERRORS[self.code].title}"

    @property
    def row(self) -> ErrorRow:
        return ERRORS[self.code]


def invalid(where: str, message: str) -> RunyardError:
    """A request refused because of one field."""
    return RunyardError(ErrorCode.INVALID_REQUEST, f"{where}: {message}", (FieldError(where, message),))
