"""JSON Schemas that callers give: compiled once, and never anything looked up for them, neither a file nor an address.

What compiling one costs is bounded. What judging a value costs is not: references in each other double it with every step, and
nothing can interrupt it. Never judge by a stranger's schema where others wait, but for ``has_no_detours``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import jsonschema_rs
import msgspec

MAX_REASON = 500
MAX_SCHEMA_BYTES = 64 * 1024
MAX_PATTERNS = 50
# Of one compiled pattern: some 4 ms of work. [a-z] may be repeated thousands of times, \p{L} two dozen times.
MAX_PATTERN_BYTES = 1024 * 1024
# Keywords by which a small schema asks for the same work again and again: both together already when it is compiled.
_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_UNEVALUATED = frozenset({"unevaluatedProperties", "unevaluatedItems"})


class Schema:
    """A schema that can be asked. Raises ``ValueError`` for one that is none, costs too much, or refers to what is not in it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        _check_cost(schema)
        try:
            # a pattern's time grows with the text and no faster, whoever wrote it
            self._validator = jsonschema_rs.validator_for(
                dict(schema),
                retriever=_nothing_elsewhere,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ValueError(_first_line(error)) from error

    def misfit(self, value: Any) -> str | None:
        """The first thing that does not fit, whole and with its place; None where all does."""
        first = next(iter(self._validator.iter_errors(value)), None)
        if first is None:
            return None
        place = "/".join(str(part) for part in first.instance_path)
        return f"{place}: {first.message}" if place else first.message


def has_no_detours(schema: Mapping[str, Any]) -> bool:
    """Judging by it takes no longer than its size and the value's say."""
    return not _keywords(schema) & (_REFERENCES | _UNEVALUATED)


def _check_cost(schema: Mapping[str, Any]) -> None:
    try:
        size = len(msgspec.json.encode(schema))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"it has {size} bytes, and a schema may have {MAX_SCHEMA_BYTES}")
    patterns = sum(_patterns(each) for each in _objects(schema))
    if patterns > MAX_PATTERNS:
        raise ValueError(f"it has {patterns} patterns, and a schema may have {MAX_PATTERNS}")
    keywords = _keywords(schema)
    if keywords & _REFERENCES and (unevaluated := sorted(keywords & _UNEVALUATED)):
        raise ValueError(f"it has {unevaluated[0]} beside references, which may take for ever")


def _keywords(schema: Mapping[str, Any]) -> set[str]:
    """And whatever else a member of it is called."""
    return {name for each in _objects(schema) for name in each}


def _patterns(of: Mapping[str, Any]) -> int:
    by_name = of.get("patternProperties")
    named = len(cast(dict[str, Any], by_name)) if isinstance(by_name, dict) else 0
    return named + isinstance(of.get("pattern"), str)


def _objects(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every object in it, at any depth."""
    waiting: list[Any] = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            found = cast(Mapping[str, Any], each)
            yield found
            waiting.extend(found.values())
        elif isinstance(each, list):
            waiting.extend(cast(list[Any], each))


def _first_line(error: Exception) -> str:
    said = str(error).partition("\n")[0][:MAX_REASON]
    return f"{said}, or one that is too large" if said.endswith('is not a "regex"') else said


def _nothing_elsewhere(uri: str) -> Any:
    raise ValueError(f"{uri[:100]} is not part of the schema")
