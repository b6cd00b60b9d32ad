"""Which failure of ours a model's refusal is, where an ACP engine passes it on: by HTTP status and by what it says.

Where an engine puts the two stands with the engine.
"""

from __future__ import annotations

from typing import Any

import msgspec

from executor.adapters.acp.protocol import AUTH_REQUIRED, NOT_FOUND, RpcError
from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.engine_json import Decoder
from executor.adapters.http_status import code_in, code_of_status, words
from shared.errors import ErrorCode

_C = ErrorCode

MAX_READ_CHARS = 16 * 1024
# Stand above the status: the same status says several things. The first that is found wins.
BEFORE_STATUS = words(
    (r"closed unexpectedly|reset by server", _C.MODEL_UNAVAILABLE),
    (r"API_KEY_INVALID|api key not valid", _C.AUTH_FAILED),
    (r"insufficient_quota|exhausted your daily quota|PerDay", _C.QUOTA_EXCEEDED),
    # one endpoint's words for every limit, the one per minute, too: that one names its end
    (r"exceeded your current quota[\s\S]{0,4000}\bretry (?:in|after) \d", _C.RATE_LIMITED),
    (r"exceeded your current quota", _C.QUOTA_EXCEEDED),
    (
        r"context_length|context window|token count .{0,60}exceeds|prompt is too long|ContextOverflow|maximum context",
        _C.CONTEXT_OVERFLOW,
    ),
    (r"fetch failed|ECONNREFUSED|ENOTFOUND|EAI_AGAIN|connection error|cannot connect|unable to connect", _C.NETWORK_ERROR),
    (r"empty response text", _C.ENGINE_NO_OUTPUT),
)
# Of a session that cannot be loaded these mean something else; all others may be how an engine says that it is gone.
NOT_OF_A_SESSION = frozenset({_C.NETWORK_ERROR, _C.AUTH_MISSING, _C.AUTH_FAILED, _C.RATE_LIMITED, _C.QUOTA_EXCEEDED})
AFTER_STATUS = words(
    (r"api key is missing|authentication required", _C.AUTH_MISSING),
    (r"api.key|unauthorized|forbidden|credential|may not use", _C.AUTH_FAILED),
    (r"rate.?limit|too many requests", _C.RATE_LIMITED),
    (r"model.{0,80}(does not exist|not found|not supported)|model_not_found", _C.MODEL_NOT_FOUND),
    (r"terminated|reset|socket|overloaded|server.?error|internal error|bad gateway|unavailable|broken", _C.MODEL_UNAVAILABLE),
)


def code_of(error: RpcError, status: int | None) -> ErrorCode:
    """The closed list's row for an error answer; ``engine_exit_nonzero`` for what nothing names."""
    said = text_of(error)[:MAX_READ_CHARS]
    found = code_in(said, BEFORE_STATUS)
    if found is not None:
        return found
    if status is not None:
        return code_of_status(status)
    if error.code == AUTH_REQUIRED:
        return _C.AUTH_MISSING
    if error.code == NOT_FOUND:
        return _C.NOT_FOUND
    return code_in(said, AFTER_STATUS) or _C.ENGINE_EXIT_NONZERO


def text_of(error: RpcError) -> str:
    """What the engine says, with what it says further in its data."""
    details = _details(error.data)
    return f"{error.message}: {details}" if details else error.message


def reason_of(error: RpcError) -> str:
    """What to tell people, bounded: the data's words where there are any, because the message may only say «internal error»."""
    said = _details(error.data) or _told_by_endpoint(error.message) or error.message.removeprefix("Internal error: ")
    return capped(said, MAX_REASON_BYTES)[0]


class _Told(msgspec.Struct):
    message: str = ""


class _Answer(msgspec.Struct):
    error: _Told


_answer = Decoder(_Answer)


def _told_by_endpoint(message: str) -> str:
    """The words in the endpoint's own answer, where the engine passes that on whole."""
    try:
        return _answer.decode(message).error.message
    except msgspec.DecodeError:
        return ""


def _details(data: Any) -> str:
    details = data.get("details") or data.get("message") if isinstance(data, dict) else data  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return details if isinstance(details, str) else ""
