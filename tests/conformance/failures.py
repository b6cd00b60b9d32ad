"""Every way a model fails, as a case each: the marker, the one right code, and the bound within which it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import ErrorCode as E
from tests.conformance.cases import Case, unanswered

# Engines ask a failing model again by themselves; beyond this nobody believes that they will stop.
BOUND_SECONDS = 60.0


@dataclass(frozen=True)
class Failure:
    """``marker`` None: the model endpoint is not there at all."""

    code: E
    marker: str | None
    in_slice: bool = False


FAILURES: Mapping[str, Failure] = {
    "401": Failure(E.AUTH_FAILED, "401", in_slice=True),
    "403": Failure(E.AUTH_FAILED, "403"),
    "404": Failure(E.MODEL_NOT_FOUND, "404"),
    "429 with Retry-After": Failure(E.RATE_LIMITED, "429"),
    "429 without Retry-After": Failure(E.RATE_LIMITED, "429now"),
    "quota": Failure(E.QUOTA_EXCEEDED, "quota"),
    "500": Failure(E.MODEL_UNAVAILABLE, "500"),
    "529": Failure(E.MODEL_UNAVAILABLE, "529"),
    "cut": Failure(E.MODEL_UNAVAILABLE, "cut"),
    "refused": Failure(E.NETWORK_ERROR, None),
    "context too long": Failure(E.CONTEXT_OVERFLOW, "toolong"),
    "empty": Failure(E.ENGINE_NO_OUTPUT, "empty"),
}


def case_of(name: str, failure: Failure) -> Case:
    marker = "" if failure.marker is None else f"[[{failure.marker}]]"
    script = [{"fail": {"code": failure.code.value, "message": "the model failed"}}]
    return Case(f"fails: {name}", f"x {marker}", script, ends=failure.code.value, holds=unanswered, in_slice=failure.in_slice)


FAILING = tuple(case_of(name, failure) for name, failure in FAILURES.items())
