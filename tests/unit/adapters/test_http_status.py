"""What a model's endpoint answers with is one row of the closed list, whatever engine passes it on."""

from __future__ import annotations

import pytest

from executor.adapters.http_status import code_of_status
from shared.errors import ERRORS
from shared.errors import ErrorCode as C


@pytest.mark.parametrize("status", [408, 409, 425, 429, 499, 500, 502, 503, 504, 529])
def test_what_may_do_better_at_another_time_is_tried_again(status: int) -> None:
    assert ERRORS[code_of_status(status)].retryable


@pytest.mark.parametrize(("status", "code"), [
    (400, C.INVALID_REQUEST), (401, C.AUTH_FAILED), (402, C.QUOTA_EXCEEDED), (404, C.MODEL_NOT_FOUND), (413, C.CONTEXT_OVERFLOW),
    (418, C.INVALID_REQUEST), (422, C.INVALID_REQUEST),
])  # fmt: skip
def test_what_the_same_request_cannot_do_better_is_not(status: int, code: C) -> None:
    assert code_of_status(status) is code
    assert not ERRORS[code].retryable
