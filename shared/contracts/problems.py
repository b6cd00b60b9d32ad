"""RFC 9457 problems: how every ``/api`` error looks."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from shared.contracts.wire import Wire
from shared.errors import ErrorCode, RunyardError


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
        status=row.status,
        detail=error.detail or row.title,
        code=error.code,
        retryable=row.retryable,
        hint=row.hint,
        errors=[FieldProblem(field=each.field, message=each.message) for each in error.errors],
    )
    return {**problem.model_dump(mode="json", by_alias=True), **error.extra}
