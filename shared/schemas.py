"""JSON Schemas that callers give: compiled once, and never anything looked up for them, neither a file nor an address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

MAX_REASON = 500


class Schema:
    """A schema that can be asked. Raises ``ValueError`` for one that is none, or that refers to what is not in it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            # a pattern's time grows with the text and no faster, whoever wrote it
            self._validator = jsonschema_rs.validator_for(
                dict(schema), retriever=_nothing_elsewhere, pattern_options=jsonschema_rs.RegexOptions()
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ValueError(str(error).partition("\n")[0][:MAX_REASON]) from error

    def misfit(self, value: Any) -> str | None:
        """The first thing that does not fit, with its place; None where all does."""
        first = next(iter(self._validator.iter_errors(value)), None)
        if first is None:
            return None
        place = "/".join(str(part) for part in first.instance_path)
        return f"{place}: {first.message}"[:MAX_REASON] if place else first.message[:MAX_REASON]


def _nothing_elsewhere(uri: str) -> Any:
    raise ValueError(f"{uri[:100]} is not part of the schema")
