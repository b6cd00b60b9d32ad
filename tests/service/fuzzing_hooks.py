"""What Schemathesis' child process is told before it calls: the few things that no schema can say."""

from __future__ import annotations

import os
import re
from typing import Any
from uuid import uuid4

import schemathesis

from shared.contracts.providers import Provider

KEY = "Idempotency-Key"
PROVIDERS = [*Provider]
NAMED = ("resumeRunId", "resumeSessionId", "executionProfile")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """A key that comes again with another body is refused, and so is what names no run, session or app.

    ``FUZZ_PROVIDER``: the one that can run here, in the place of any other.
    """
    if case.headers and re.fullmatch("[ -~]{1,255}", str(case.headers.get(KEY, ""))):
        case.headers[KEY] = uuid4().hex
    if "FUZZ_WHOLE_NUMBERS" in os.environ:
        case.body = whole(case.body)
    if isinstance(case.body, dict):
        if case.body.get("provider") in PROVIDERS:
            case.body["provider"] = os.environ.get("FUZZ_PROVIDER", case.body["provider"])
        for name in NAMED:
            if isinstance(case.body.get(name), str):
                case.body[name] = None


def whole(value: Any) -> Any:
    """5 for 5.0, which is the same number to JSON, and which none of our services writes to another."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(each) for each in value]
    return {name: whole(each) for name, each in value.items()} if isinstance(value, dict) else value
