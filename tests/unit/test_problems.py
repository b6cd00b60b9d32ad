"""What is read of a peer's error answer, whatever it sent."""

from __future__ import annotations

import pytest

from shared.contracts.problems import error_of
from shared.errors import ErrorCode

OURS = b'{"code": "queue_full", "detail": "later"}'


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 60_000,
        b'{"code": ' + b"9" * 5000 + b"}",
        b"\xff",
        b'{"code": []}',
        b'{"code": {"a": 1}, "detail": [[]], "errors": [1, {}]}',
    ],
)
def test_an_answer_that_is_no_problem_is_read_by_its_status(content: bytes) -> None:
    error = error_of(404, content)
    assert error is not None
    assert (error.code, error.detail) == (ErrorCode.NOT_FOUND, "answered 404")


@pytest.mark.parametrize(("retry_after", "seconds"), [("9" * 5000, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("3", 3)])
def test_a_wait_that_nobody_could_keep_is_none(retry_after: str, seconds: int | None) -> None:
    error = error_of(429, OURS, retry_after)
    assert error is not None
    assert (error.code, error.detail, error.retry_after) == (ErrorCode.QUEUE_FULL, "later", seconds)
