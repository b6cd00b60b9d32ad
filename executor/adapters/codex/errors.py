"""Which failure of ours a failure of Codex is: by its error info, by HTTP status, by what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.codex.protocol import TurnError
from executor.adapters.http_status import code_in, code_of_status, words
from shared.errors import ErrorCode

_C = ErrorCode

BY_INFO: Mapping[str, ErrorCode] = MappingProxyType(
    {
        "contextWindowExceeded": _C.CONTEXT_OVERFLOW,
        "usageLimitExceeded": _C.QUOTA_EXCEEDED,
        "sessionBudgetExceeded": _C.QUOTA_EXCEEDED,
        "rateLimitExceeded": _C.RATE_LIMITED,
        "modelNotFound": _C.MODEL_NOT_FOUND,
        "unauthorized": _C.AUTH_FAILED,
        "badRequest": _C.INVALID_REQUEST,
        "cyberPolicy": _C.INVALID_REQUEST,
        "misalignmentPolicyViolation": _C.INVALID_REQUEST,
        "inferenceHookDenied": _C.PERMISSION_DENIED,
        "tooManyDenials": _C.PERMISSION_DENIED,
        "internalServerError": _C.MODEL_UNAVAILABLE,
        "serverOverloaded": _C.MODEL_UNAVAILABLE,
        "flexUnavailable": _C.MODEL_UNAVAILABLE,
        "policyCapacityUnavailable": _C.MODEL_UNAVAILABLE,
        "sandboxError": _C.WORKSPACE_ERROR,
    }
)
# The first that is found wins.
BY_TEXT = words(
    (r"missing environment variable", _C.AUTH_MISSING),
    (r"quota exceeded|insufficient_quota", _C.QUOTA_EXCEEDED),
    (r"rate limit exceeded|rate limit reached", _C.RATE_LIMITED),
    (r"context window|context_length", _C.CONTEXT_OVERFLOW),
    (r"max_output_tokens", _C.OUTPUT_LIMIT),
    (r"model.{0,80}(does not exist|not found|not supported)|model_not_found", _C.MODEL_NOT_FOUND),
    (
        r"connection failed|error sending request|connection refused|dns error|failed to lookup address|waiting for network",
        _C.NETWORK_ERROR,
    ),
    (r"stream disconnected|high demand|overloaded|response\.failed", _C.MODEL_UNAVAILABLE),
    (r"no rollout found|thread not found", _C.NOT_FOUND),
    (r"model provider .{0,80} not found|invalid_request_error|failed to load configuration", _C.INVALID_REQUEST),
)
_STATUS_IN_TEXT = re.compile(r"(?:unexpected|last) status:? (\d{3})")


def code_of(error: TurnError) -> ErrorCode:
    """The closed list's row for a failed turn or a retry; ``engine_exit_nonzero`` for what nothing names."""
    info = error.codex_error_info
    if isinstance(info, str) and info in BY_INFO:
        return BY_INFO[info]
    said = f"{error.message} {error.additional_details or ''}"
    status = _status_in(info)
    return code_of_text(said) if status is None else code_of_status(status)


def code_of_text(said: str) -> ErrorCode:
    status = _status_in_text(said)
    if status is not None:
        return code_of_status(status)
    return code_in(said, BY_TEXT) or _C.ENGINE_EXIT_NONZERO


def reason_of(error: TurnError) -> str:
    """What to tell people, bounded: the detail where there is one, because the message may only count retries."""
    return capped(error.additional_details or error.message, MAX_REASON_BYTES)[0]


def _status_in(info: object) -> int | None:
    if not isinstance(info, dict):
        return None
    details: list[object] = list(info.values())  # pyright: ignore[reportUnknownArgumentType]
    detail = details[0] if details else None
    status: object = detail.get("httpStatusCode") if isinstance(detail, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return status if isinstance(status, int) else None


def _status_in_text(said: str) -> int | None:
    found = _STATUS_IN_TEXT.search(said)
    return int(found.group(1)) if found else None
