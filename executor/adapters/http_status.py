"""Which failure of ours a model's endpoint meant, whatever engine passes it on: by HTTP status, or by an engine's words.

The one table of statuses stands here; what an engine says stands with the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from shared.errors import ErrorCode

_C = ErrorCode

BY_STATUS: Mapping[int, ErrorCode] = MappingProxyType(
    {
        400: _C.INVALID_REQUEST,
        401: _C.AUTH_FAILED,
        402: _C.QUOTA_EXCEEDED,
        403: _C.AUTH_FAILED,
        404: _C.MODEL_NOT_FOUND,
        413: _C.CONTEXT_OVERFLOW,
        422: _C.INVALID_REQUEST,
        429: _C.RATE_LIMITED,
        # it gave up waiting, or was asked at a bad moment: the same request may do better
        408: _C.MODEL_UNAVAILABLE,
        409: _C.MODEL_UNAVAILABLE,
        425: _C.MODEL_UNAVAILABLE,
        499: _C.MODEL_UNAVAILABLE,
    }
)
Words = tuple[tuple[re.Pattern[str], ErrorCode], ...]


def code_of_status(status: int) -> ErrorCode:
    """A status without a row is the endpoint's fault from 500 on, else the request's."""
    return BY_STATUS.get(status, _C.MODEL_UNAVAILABLE if status >= 500 else _C.INVALID_REQUEST)


def words(*rows: tuple[str, ErrorCode]) -> Words:
    """A table by patterns over what an engine says, whatever its capitals."""
    return tuple((re.compile(pattern, re.IGNORECASE), code) for pattern, code in rows)


def code_in(said: str, table: Words) -> ErrorCode | None:
    """The first row that is found wins; None where nothing names it."""
    return next((code for pattern, code in table if pattern.search(said)), None)
