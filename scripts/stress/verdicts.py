"""How a run ended for its caller, and which kind of failure that is: one table over the closed list of error codes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from shared.errors import ErrorCode


class Outcome(StrEnum):
    """What the caller saw. The first four are the run's own end; the others end the caller's patience, not the run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    REFUSED = "refused"  # the start was
    BLOCKED = "blocked"  # it waits for a person, and none is here
    CLIENT_TIMEOUT = "client_timeout"
    STREAM_CUT = "stream_cut"
    STREAM_INCOHERENT = "stream_incoherent"  # an event is missing or came twice
    TRANSPORT_ERROR = "transport_error"


OF_STATUS: Mapping[str, Outcome] = MappingProxyType(
    {"success": Outcome.SUCCEEDED, "error": Outcome.FAILED, "timeout": Outcome.TIMEOUT, "canceled": Outcome.CANCELED}
)


class FailureClass(StrEnum):
    NONE = "none"
    REQUEST_REJECTED = "request_rejected"
    ACCESS_DENIED = "access_denied"
    OVERLOADED = "overloaded"
    PROVIDER_CAPABILITY_BLOCKED = "provider_capability_blocked"
    ENVIRONMENT_NOT_READY = "environment_not_ready"
    AUTH_MISSING = "auth_missing"
    AUTH_FAILED = "auth_failed"
    QUOTA_EXCEEDED = "quota_exceeded"
    MODEL_INVALID = "model_invalid"
    MODEL_UNAVAILABLE = "model_unavailable"
    CONTEXT_OVERFLOW = "context_overflow"
    NETWORK_ERROR = "network_error"
    PROVIDER_RUNTIME_BOOTSTRAP = "provider_runtime_bootstrap"
    PROVIDER_RUNTIME_FAILED = "provider_runtime_failed"
    PROVIDER_NO_OUTPUT = "provider_no_output"
    OUTPUT_REJECTED = "output_rejected"
    TIMEOUT = "timeout"
    RUN_BLOCKED = "run_blocked"
    USER_CANCELED = "user_canceled"
    EXECUTOR_LOST = "executor_lost"
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    PLATFORM_FAILED = "platform_failed"
    STREAM_CUT = "stream_cut"
    STREAM_INCOHERENT = "stream_incoherent"
    TRANSPORT_ERROR = "transport_error"
    UNCLASSIFIED = "unclassified"


_E, _F = ErrorCode, FailureClass
BY_CODE: Mapping[ErrorCode, FailureClass] = MappingProxyType(
    {
        _E.INVALID_REQUEST: _F.REQUEST_REJECTED,
        _E.NOT_FOUND: _F.REQUEST_REJECTED,
        _E.PAYLOAD_TOO_LARGE: _F.REQUEST_REJECTED,
        _E.CONFLICT: _F.REQUEST_REJECTED,
        _E.IDEMPOTENCY_CONFLICT: _F.REQUEST_REJECTED,
        _E.SESSION_BUSY: _F.REQUEST_REJECTED,
        _E.SKILL_INVALID: _F.REQUEST_REJECTED,
        _E.UNAUTHORIZED: _F.ACCESS_DENIED,
        _E.PERMISSION_DENIED: _F.ACCESS_DENIED,
        _E.QUEUE_FULL: _F.OVERLOADED,
        _E.RATE_LIMITED: _F.OVERLOADED,
        _E.CAPABILITY_UNAVAILABLE: _F.PROVIDER_CAPABILITY_BLOCKED,
        _E.PROVIDER_UNAVAILABLE: _F.ENVIRONMENT_NOT_READY,
        _E.ENGINE_NOT_FOUND: _F.ENVIRONMENT_NOT_READY,
        _E.AUTH_MISSING: _F.AUTH_MISSING,
        _E.AUTH_FAILED: _F.AUTH_FAILED,
        _E.QUOTA_EXCEEDED: _F.QUOTA_EXCEEDED,
        _E.MODEL_NOT_FOUND: _F.MODEL_INVALID,
        _E.MODEL_UNAVAILABLE: _F.MODEL_UNAVAILABLE,
        _E.CONTEXT_OVERFLOW: _F.CONTEXT_OVERFLOW,
        _E.NETWORK_ERROR: _F.NETWORK_ERROR,
        _E.ENGINE_START_FAILED: _F.PROVIDER_RUNTIME_BOOTSTRAP,
        _E.ENGINE_EXIT_NONZERO: _F.PROVIDER_RUNTIME_FAILED,
        _E.ENGINE_OOM: _F.PROVIDER_RUNTIME_FAILED,
        _E.ENGINE_PROTOCOL_ERROR: _F.PROVIDER_RUNTIME_FAILED,
        _E.POISON_RUN: _F.PROVIDER_RUNTIME_FAILED,
        _E.ENGINE_NO_OUTPUT: _F.PROVIDER_NO_OUTPUT,
        _E.OUTPUT_LIMIT: _F.OUTPUT_REJECTED,
        _E.OUTPUT_INVALID: _F.OUTPUT_REJECTED,
        _E.TIMEOUT: _F.TIMEOUT,
        _E.IDLE_TIMEOUT: _F.TIMEOUT,
        _E.INTERACTION_EXPIRED: _F.RUN_BLOCKED,
        _E.USER_CANCELED: _F.USER_CANCELED,
        _E.EXECUTOR_LOST: _F.EXECUTOR_LOST,
        _E.OWNER_LOST: _F.EXECUTOR_LOST,
        _E.MANAGER_UNAVAILABLE: _F.PLATFORM_UNAVAILABLE,
        _E.STORAGE_UNAVAILABLE: _F.PLATFORM_UNAVAILABLE,
        _E.WORKSPACE_ERROR: _F.PLATFORM_FAILED,
        _E.INTERNAL: _F.PLATFORM_FAILED,
    }
)
# Outcomes that no error code stands behind; the others are classified by their code.
BY_OUTCOME: Mapping[Outcome, FailureClass] = MappingProxyType(
    {
        Outcome.SUCCEEDED: _F.NONE,
        Outcome.BLOCKED: _F.RUN_BLOCKED,
        Outcome.CLIENT_TIMEOUT: _F.TIMEOUT,
        Outcome.STREAM_CUT: _F.STREAM_CUT,
        Outcome.STREAM_INCOHERENT: _F.STREAM_INCOHERENT,
        Outcome.TRANSPORT_ERROR: _F.TRANSPORT_ERROR,
    }
)
SUGGESTIONS: Mapping[FailureClass, str] = MappingProxyType(
    {
        _F.NONE: "",
        _F.REQUEST_REJECTED: "read errorMessage: the request itself is refused, at any load",
        _F.ACCESS_DENIED: "give a key that may do this (RUNYARD_API_KEY)",
        _F.OVERLOADED: "lower --concurrency, or give more executors, slots or queue (RUNYARD_QUEUE_LIMIT)",
        _F.PROVIDER_CAPABILITY_BLOCKED: "this provider cannot do what was asked; see GET /api/providers",
        _F.ENVIRONMENT_NOT_READY: "run provider-runtime-health-check.sh: no executor has this engine",
        _F.AUTH_MISSING: "run bootstrap-local-provider-env.sh and give the executors what it writes",
        _F.AUTH_FAILED: "the model refused the key: replace it",
        _F.QUOTA_EXCEEDED: "the account is used up: raise its plan or use another key",
        _F.MODEL_INVALID: "name another --model: this key has no such one",
        _F.MODEL_UNAVAILABLE: "the model endpoint failed: try later, or with less --concurrency",
        _F.CONTEXT_OVERFLOW: "shorten the prompt",
        _F.NETWORK_ERROR: "the executor does not reach the model endpoint: check base URL, proxy and network there",
        _F.PROVIDER_RUNTIME_BOOTSTRAP: "the engine does not start: see stderrTail, run provider-runtime-health-check.sh",
        _F.PROVIDER_RUNTIME_FAILED: "the engine broke off: see stderrTail and sse.raw.txt",
        _F.PROVIDER_NO_OUTPUT: "the engine ended without an answer: see sse.raw.txt",
        _F.OUTPUT_REJECTED: "the answer is too large or does not fit its schema: see sse.raw.txt",
        _F.TIMEOUT: "errorCode set: the run's own limit, raise providerOptions.timeoutMs; curlExit 28: ours, raise --timeout",
        _F.RUN_BLOCKED: "the run asks a person: use another engineMode, or a prompt that asks nothing",
        _F.USER_CANCELED: "someone stopped the run",
        _F.EXECUTOR_LOST: "an executor died or was cut off: see its log and GET /api/executors",
        _F.PLATFORM_UNAVAILABLE: "manager or database did not answer: see GET /api/system/readiness",
        _F.PLATFORM_FAILED: "a part of Runyard failed: see its log at the time of the run",
        _F.STREAM_CUT: "the run may well have ended (see runStatus); something between it and us cuts streams",
        _F.STREAM_INCOHERENT: "an event was lost or doubled: keep sse.raw.txt and report it",
        _F.TRANSPORT_ERROR: "nobody answered at --base-url",
        _F.UNCLASSIFIED: "a failure without a code of the closed list: keep sse.raw.txt and report it",
    }
)


def classify(outcome: Outcome, code: str | None) -> FailureClass:
    """The outcome says it where it can, else the code; a code nobody knows is ``unclassified``, which is a finding by itself."""
    if outcome in BY_OUTCOME:
        return BY_OUTCOME[outcome]
    try:
        return BY_CODE[ErrorCode(code or "")]
    except ValueError:
        return FailureClass.UNCLASSIFIED
