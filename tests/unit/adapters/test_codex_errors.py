"""Every failure of Codex has one row of the closed list."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.codex.errors import BY_INFO, code_of
from executor.adapters.codex.protocol import TurnError
from shared.errors import ErrorCode as C


@pytest.mark.parametrize(
    ("info", "message", "code"),
    [
        *((info, "", code) for info, code in BY_INFO.items()),
        ({"httpConnectionFailed": {"httpStatusCode": 401}}, "", C.AUTH_FAILED),
        ({"responseStreamDisconnected": {"httpStatusCode": 403}}, "Reconnecting... 1/5", C.AUTH_FAILED),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, "", C.RATE_LIMITED),
        ({"httpConnectionFailed": {"httpStatusCode": 503}}, "", C.MODEL_UNAVAILABLE),
        ({"httpConnectionFailed": {"httpStatusCode": None}}, "Connection failed: error sending request", C.NETWORK_ERROR),
        ("other", "stream disconnected before completion: Transport error: network error", C.MODEL_UNAVAILABLE),
        ("other", "stream disconnected before completion: failed to lookup address information", C.NETWORK_ERROR),
        ("other", "unexpected status 404 Not Found: no such model", C.MODEL_NOT_FOUND),
        ("other", "exceeded retry limit, last status: 429 Too Many Requests", C.RATE_LIMITED),
        (None, "Missing environment variable: `OPENAI_API_KEY`.", C.AUTH_MISSING),
        (None, "Quota exceeded. Check your plan and billing details.", C.QUOTA_EXCEEDED),
        (None, "Incomplete response returned, reason: max_output_tokens", C.OUTPUT_LIMIT),
        (None, "something nobody has seen", C.ENGINE_EXIT_NONZERO),
        ({"somethingNew": 3}, "something nobody has seen", C.ENGINE_EXIT_NONZERO),
        ({}, "", C.ENGINE_EXIT_NONZERO),
    ],
)
def test_a_failure_has_its_code(info: Any, message: str, code: C) -> None:
    assert code_of(TurnError(message=message, codex_error_info=info)) is code
