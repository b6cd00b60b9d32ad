"""Which failure of ours a failure of Claude Code is."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.claude.errors import code_of, code_of_retry, reason_of
from executor.adapters.claude.protocol import ApiRetry, Result
from shared.errors import ErrorCode

C = ErrorCode


@pytest.mark.parametrize(
    ("fields", "word", "code"),
    [
        ({"result": "Not logged in · Please run /login"}, "authentication_failed", C.AUTH_MISSING),
        ({"result": "API Error: 401 nope", "api_error_status": 401}, "authentication_failed", C.AUTH_FAILED),
        ({"result": "OAuth account is not allowed"}, "oauth_org_not_allowed", C.AUTH_FAILED),
        ({"result": "Your credit balance is too low", "api_error_status": 400}, "billing_error", C.QUOTA_EXCEEDED),
        ({"result": "You've hit your usage limit", "api_error_status": 429}, "rate_limit", C.QUOTA_EXCEEDED),
        ({"result": "Request rejected (429)", "api_error_status": 429}, "rate_limit", C.RATE_LIMITED),
        ({"result": "There's an issue", "api_error_status": 404}, "model_not_found", C.MODEL_NOT_FOUND),
        ({"result": "Too big", "api_error_status": 413}, None, C.CONTEXT_OVERFLOW),
        ({"result": "Prompt is too long", "api_error_status": 400}, "invalid_request", C.CONTEXT_OVERFLOW),
        ({"result": "?", "terminal_reason": "prompt_too_long"}, None, C.CONTEXT_OVERFLOW),
        ({"result": "API Error: 400 bad", "api_error_status": 400}, "unknown", C.INVALID_REQUEST),
        ({"result": "exceeded the 64000 output token maximum"}, "max_output_tokens", C.OUTPUT_LIMIT),
        ({"result": "API Error: 400 tools.12.name: 'websocket.send'", "api_error_status": 400}, "unknown", C.INVALID_REQUEST),
        ({"result": "API Error: 404 model: socket-x", "api_error_status": 404}, "model_not_found", C.MODEL_NOT_FOUND),
        ({"result": "API Error: 401 the session timed out", "api_error_status": 401}, None, C.AUTH_FAILED),
        ({"result": "API Error: The socket connection was closed unexpectedly"}, "unknown", C.MODEL_UNAVAILABLE),
        ({"result": "API Error: 500", "api_error_status": 500}, "server_error", C.MODEL_UNAVAILABLE),
        ({"result": "API Error: Repeated 529 Overloaded errors"}, "server_error", C.MODEL_UNAVAILABLE),
        ({"result": "Unable to connect to API (ECONNRESET)"}, "server_error", C.MODEL_UNAVAILABLE),
        ({"result": "Unable to connect to API (ConnectionRefused)"}, "server_error", C.NETWORK_ERROR),
        ({"result": "Unable to connect to API (ENOTFOUND)"}, "server_error", C.NETWORK_ERROR),
        ({"result": "API Error: something broke in the middle"}, "unknown", C.MODEL_UNAVAILABLE),
        ({"errors": ["No conversation found with session ID: x"]}, None, C.NOT_FOUND),
        ({"subtype": "error_max_structured_output_retries"}, None, C.OUTPUT_INVALID),
        ({"subtype": "error_max_turns", "terminal_reason": "max_turns"}, None, C.ENGINE_EXIT_NONZERO),
    ],
)
def test_a_failed_result_is_named(fields: dict[str, Any], word: str | None, code: ErrorCode) -> None:
    result = Result(is_error=True, **fields)
    assert code_of(result, word) is code
    assert reason_of(result)


@pytest.mark.parametrize(
    ("status", "word", "was_cut", "code"),
    [
        (401, "authentication_failed", False, C.AUTH_FAILED),
        (429, "rate_limit", False, C.RATE_LIMITED),
        (529, "overloaded", False, C.MODEL_UNAVAILABLE),
        (None, "unknown", False, C.NETWORK_ERROR),
        (None, "unknown", True, C.MODEL_UNAVAILABLE),
        (None, None, False, C.NETWORK_ERROR),
    ],
)
def test_a_retry_is_named(status: int | None, word: str | None, was_cut: bool, code: ErrorCode) -> None:
    assert code_of_retry(ApiRetry(attempt=1, error_status=status, error=word), was_cut) is code


def test_a_reason_is_bounded() -> None:
    assert len(reason_of(Result(result="x" * 100_000)).encode()) <= 2048
