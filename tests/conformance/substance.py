"""What of a recording is substance: which kinds of lines an engine prints, and their fields.

Texts, ids, times, how often a kind comes are not: another model, another day. Nor is the order in which kinds first come: an
engine does several things at once. Pure; knows no engine but in ``BY_PACE``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 5
# What tells a line's kind apart, in every protocol an engine speaks here.
NAMES = ("method", "type", "subtype")
INNER = ("params.update.sessionUpdate", "params.item.type", "event.type", "request.subtype", "response.subtype")

# Said or not by the pace of a machine: what a command printed before it was over.
BY_PACE = frozenset({"item/commandExecution/outputDelta"})

Fields = Mapping[str, frozenset[str]]


def substance(lines: bytes) -> dict[str, Fields]:
    """By kind, in order of appearance: the types of every field. What is no JSON object is the kind ``(text)``."""
    found: dict[str, dict[str, set[str]]] = {}
    for line in filter(None, lines.split(b"\n")):
        message = _object(line)
        fields = found.setdefault("(text)" if message is None else kind_of(message), {})
        for path, kind in _fields(message or {}, ""):
            fields.setdefault(path, set()).add(kind)
    return {kind: {path: frozenset(types) for path, types in fields.items()} for kind, fields in found.items()}


def kind_of(message: Mapping[str, Any]) -> str:
    said = [str(message[name]) for name in NAMES if isinstance(message.get(name), str)]
    said += [inner for path in INNER if isinstance(inner := _at(message, path), str)]
    if not said:
        answer = "error" if "error" in message else "result"
        inside: Any = message.get(answer)
        said = [f"{answer}({','.join(sorted(inside)) if isinstance(inside, dict) else ''})"]
    return " ".join(dict.fromkeys(said))


def differences(kept: bytes, new: bytes) -> tuple[list[str], list[str]]:
    """What an adapter must be looked at for, and what it may ignore: another order, a field that is only new."""
    before, now = substance(kept), substance(new)
    wrong = [f"no longer said: {kind}" for kind in before if kind not in now and kind not in BY_PACE]
    wrong += [f"never said before: {kind}" for kind in now if kind not in before and kind not in BY_PACE]
    both = [kind for kind in before if kind in now]
    more = [] if both == [kind for kind in now if kind in before] else [f"in another order: {', '.join(now)}"]
    for kind in both:
        wrong += [f"{kind}: {path} is gone" for path in before[kind] if path not in now[kind]]
        wrong += [f"{kind}: {path} {text}" for path, text in _retyped(before[kind], now[kind])]
        more += [f"{kind}: {path} is new" for path in now[kind] if path not in before[kind]]
    return wrong, more


def _retyped(before: Fields, now: Fields) -> Iterator[tuple[str, str]]:
    for path in before:
        old, new = before[path] - {"null"}, now.get(path, frozenset()) - {"null"}
        if old and new and not old & new:
            yield path, f"was {'|'.join(sorted(old))} and is {'|'.join(sorted(new))}"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _fields(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every member below, with its type; the items of a list are one."""
    if depth >= MAX_DEPTH:
        return
    match value:
        case dict():
            for name, member in value.items():
                below = f"{path}.{name}" if path else str(name)
                yield below, _type(member)
                yield from _fields(member, below, depth + 1)
        case list():
            for item in value:
                yield from _fields(item, f"{path}[]", depth + 1)
        case _:
            pass


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "object"


def _at(message: Mapping[str, Any], path: str) -> Any:
    value: Any = message
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
