"""An answer that was asked for in a schema's form: JSON, or the attempt has failed. Nothing here knows an engine.

Engines trust their model: a text that is no JSON at all still ends their turn in success.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from executor.adapters.base import Outcome
from shared.contracts.events import AttemptOutcome, Usage
from shared.errors import ErrorCode

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None),
}  # fmt: skip


def checked(answer: str, schema: Mapping[str, Any], usage: Usage | None) -> Outcome:
    """Success with the JSON it is; ``output_invalid``, with the text, where it is none or its outermost shape is another."""
    try:
        value = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        return _invalid(f"the answer is not JSON: {error}", answer, usage)
    wrong = _misfit(value, schema)
    if wrong is not None:
        return _invalid(f"the answer does not fit its schema: {wrong}", answer, usage)
    return Outcome(AttemptOutcome.SUCCESS, result=value, usage=usage)


def _misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What the outermost shape lacks: its type, or a required member. What lies deeper is not looked at."""
    wanted = schema.get("type")
    kind = _TYPES.get(wanted) if isinstance(wanted, str) else None
    if kind is not None and (not isinstance(value, kind) or (isinstance(value, bool) and wanted != "boolean")):
        return f"it is no {wanted}"
    required = schema.get("required")
    if isinstance(value, dict) and isinstance(required, list):
        missing = [str(name) for name in required if name not in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return f"{missing[0]} is missing" if missing else None
    return None


def _invalid(why: str, answer: str, usage: Usage | None) -> Outcome:
    return Outcome(AttemptOutcome.ERROR, ErrorCode.OUTPUT_INVALID, why[:1000], result=answer, usage=usage)
