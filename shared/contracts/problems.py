"""RFC 9457 problems: how every ``/api`` error looks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from pydantic import Field

from shared.contracts.wire import Wire
from shared.errors import ErrorCode, FieldError, RunyardError

MAX_RETRY_DIGITS = 9


class FieldProblem(Wire):
    field: str = Field(description="Where it is in the request, e.g. `metadata.color`.")
    message: str


class Problem(Wire):
    type: str = Field(description="`urn:runyard:problem:<code>`; stable.")
    title: str
    status: int
    detail: str
    code: ErrorCode
    retryable: bool
    hint: str = Field(description="One line on what to do about it.")
    errors: list[FieldProblem] = Field(default_factory=list[FieldProblem])


def problem_of(error: RunyardError) -> dict[str, Any]:
    """The JSON body of an error answer; ``error.extra`` stands beside the standard members."""
    row = error.row
    problem = Problem(
        type=f"urn:runyard:problem:{error.code}",
        title=row.title,
        status=error.status or row.status,
        detail=error.detail or row.title,
        code=error.code,
        retryable=row.retryable,
        hint=row.hint,
        errors=[FieldProblem(field=each.field, message=each.message) for each in error.errors],
    )
    return {**problem.model_dump(mode="json", by_alias=True), **error.extra}


# What an answer means that brings no problem of ours: an old proxy between two services, a newer peer's code.
_BY_STATUS: Mapping[int, ErrorCode] = MappingProxyType(
    {
        401: ErrorCode.UNAUTHORIZED,
        403: ErrorCode.PERMISSION_DENIED,
        404: ErrorCode.NOT_FOUND,
        409: ErrorCode.CONFLICT,
        413: ErrorCode.PAYLOAD_TOO_LARGE,
        429: ErrorCode.RATE_LIMITED,
    }
)


def error_of(status: int, content: bytes, retry_after: str | None = None) -> RunyardError | None:
    """``problem_of`` backwards: what a peer's error answer says; members that are not ours become ``extra``.

    None for a 5xx that is no problem of ours: nobody can say what it means. Never raises, whatever the peer sent.
    """
    body = _object(content)
    if body is None or "code" not in body:
        if status >= 500:
            return None
        body = {}
    known = {"type", "title", "status", "detail", "code", "retryable", "hint", "errors"}
    return RunyardError(
        _code(body.get("code"), status),
        _text(body.get("detail")) or f"answered {status}",
        tuple(_fields(body.get("errors"))),
        _seconds(retry_after),
        {name: value for name, value in body.items() if name not in known},
    )


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], body) if isinstance(body, dict) else None


def _seconds(retry_after: str | None) -> int | None:
    """None for a date, and for what nobody waits for."""
    if retry_after is None or not retry_after.isdecimal() or len(retry_after) > MAX_RETRY_DIGITS:
        return None
    return int(retry_after)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _code(name: Any, status: int) -> ErrorCode:
    try:
        return ErrorCode(name)
    except ValueError:
        return _BY_STATUS.get(status, ErrorCode.INTERNAL if status >= 500 else ErrorCode.INVALID_REQUEST)


def _fields(errors: Any) -> list[FieldError]:
    if not isinstance(errors, list):
        return []
    given = [cast(dict[str, Any], each) for each in cast(list[Any], errors) if isinstance(each, dict)]
    return [FieldError(_text(each.get("field")), _text(each.get("message"))) for each in given]
