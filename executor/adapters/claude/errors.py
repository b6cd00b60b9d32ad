"""Which failure of ours a failure of Claude Code is: by why its turn ended, what it says, the HTTP status, its own word.

Its exit status and the ``subtype`` of its result say nothing of this: an error of the endpoint is a «success» to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.claude.protocol import ApiRetry, Result
from executor.adapters.http_status import code_in, code_of_status, words
from shared.errors import ErrorCode

_C = ErrorCode

BY_TERMINAL_REASON: Mapping[str, ErrorCode] = MappingProxyType({"prompt_too_long": _C.CONTEXT_OVERFLOW})
BY_SUBTYPE: Mapping[str, ErrorCode] = MappingProxyType({"error_max_structured_output_retries": _C.OUTPUT_INVALID})
BY_TEXT = words(
    (r"not logged in|please run /login", _C.AUTH_MISSING),
    (r"no conversation found", _C.NOT_FOUND),
    (r"credit balance|usage limit|your current quota|spend(ing)? limit|insufficient_quota", _C.QUOTA_EXCEEDED),
    (r"prompt is too long|context window|context_length", _C.CONTEXT_OVERFLOW),
    (r"output token maximum", _C.OUTPUT_LIMIT),
)
# How a connection fails. An endpoint that answered with a status was reached, whatever stands in its words.
BY_CONNECTION = words(
    (r"connectionrefused|econnrefused|enotfound|eai_again|etimedout|timed out|failedtoopensocket", _C.NETWORK_ERROR),
    (r"econnreset|connection to the api was lost|overloaded|socket", _C.MODEL_UNAVAILABLE),
)
BY_WORD: Mapping[str, ErrorCode] = MappingProxyType(
    {
        "authentication_failed": _C.AUTH_FAILED,
        "oauth_org_not_allowed": _C.AUTH_FAILED,
        "billing_error": _C.QUOTA_EXCEEDED,
        "rate_limit": _C.RATE_LIMITED,
        "invalid_request": _C.INVALID_REQUEST,
        "model_not_found": _C.MODEL_NOT_FOUND,
        "server_error": _C.MODEL_UNAVAILABLE,
        "max_output_tokens": _C.OUTPUT_LIMIT,
    }
)
_FROM_ENDPOINT = "API Error"  # how an error is told that the model reported in the middle of its answer


def code_of(result: Result, word: str | None) -> ErrorCode:
    """``word``: the engine's own name of the error, told beside its answer. ``engine_exit_nonzero``: nothing names it."""
    known = BY_TERMINAL_REASON.get(result.terminal_reason or "") or BY_SUBTYPE.get(result.subtype)
    said = reason_of(result)
    named = known or code_in(said, BY_TEXT) or _by_status(result.api_error_status) or code_in(said, BY_CONNECTION)
    named = named or BY_WORD.get(word or "")
    return named or (_C.MODEL_UNAVAILABLE if said.startswith(_FROM_ENDPOINT) else _C.ENGINE_EXIT_NONZERO)


def code_of_retry(retry: ApiRetry, was_cut: bool) -> ErrorCode:
    """Of a broken connection the engine names no reason: ``was_cut`` tells one that had begun to answer."""
    unreachable = _C.MODEL_UNAVAILABLE if was_cut else _C.NETWORK_ERROR
    return _by_status(retry.error_status) or BY_WORD.get(retry.error or "") or unreachable


def reason_of(result: Result) -> str:
    """What to tell people, bounded."""
    said = result.result or "; ".join(result.errors) or f"the turn ended with {result.terminal_reason or result.subtype}"
    return capped(said, MAX_REASON_BYTES)[0]


def reason_of_retry(retry: ApiRetry) -> str:
    status = (
        "no answer from the model endpoint" if retry.error_status is None else f"the model endpoint answered {retry.error_status}"
    )
    return f"{status} ({retry.error})" if retry.error else status


def asked_with(retry: ApiRetry) -> int | None:
    """How long the model asked for, in milliseconds: it asks for whole seconds, while what the engine waits by itself has a
    fraction, which chance gave it."""
    is_asked = retry.error_status is not None and retry.retry_delay_ms > 0 and retry.retry_delay_ms % 1000 == 0
    return int(retry.retry_delay_ms) if is_asked else None


def _by_status(status: int | None) -> ErrorCode | None:
    return None if status is None else code_of_status(status)
