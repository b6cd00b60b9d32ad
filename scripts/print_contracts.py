"""Prints the reference of events, HTTP, capabilities and timeouts from what decides them. See ``docs/reference``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from inspect import getdoc
from typing import Any

from pydantic import BaseModel

from control_plane.views.workbench import FLAT_FRAMES
from executor.adapters import ADAPTERS
from executor.adapters.engine_modes import MODES, told
from executor.adapters.takes import TAKES
from scripts import print_openapi
from scripts.generated_parts import ROOT, Part, print_or_write, table
from shared.contracts.events import PAYLOADS, Kind, RawRef, RunEvent, StreamGap, Timeouts, Usage
from shared.contracts.providers import ALIASES, CLOSED, Capabilities, Provider

REFERENCE = "docs/reference"
TIMEOUTS = ROOT / "executor_manager" / "timeouts.toml"


# ---- events ----


def envelope() -> str:
    return _shapes((RunEvent, RawRef))


def payloads() -> str:
    """A section for every kind, in the order of ``Kind``; some stay between executor and control plane."""
    told = [kind for kind in Kind if kind not in (Kind.LOG, Kind.SNAPSHOT, Kind.STREAM_GAP)]
    sections = [f"### `{kind}`\n\n{_shape(PAYLOADS[kind])}" for kind in told]
    return "\n\n".join([*sections, f"### `{Kind.STREAM_GAP}`\n\n{_shape(StreamGap)}", _shapes((Usage, Timeouts))])


def flat_frames() -> str:
    return _shapes(FLAT_FRAMES)


def _shapes(models: Iterable[type[BaseModel]]) -> str:
    return "\n\n".join(f"### {model.__name__}\n\n{_shape(model)}" for model in models)


def _shape(model: type[BaseModel]) -> str:
    """A model's promise and its fields; a nested model is named, not unfolded."""
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", type_of(each), "yes" if name in required else "", each.get("description", ""))
        for name, each in schema.get("properties", {}).items()
    ]
    promise = getdoc(model) if model.__doc__ else None
    return "\n\n".join(filter(None, (promise, table(("field", "type", "always", "meaning"), rows))))


def type_of(schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " · ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(type_of(each) for each in schema["anyOf"] if each.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return "instant" if schema.get("format") == "date-time" else str(schema.get("type", "anything"))


# ---- HTTP ----


def operations(service: str) -> str:
    """Every operation a service describes, and what it may answer."""
    rows = [
        (
            f"`{method.upper()} {path}`",
            each["summary"],
            ", ".join(f"`{one['name']}`" for one in each["parameters"] if one["in"] == "query"),
            _body(each),
            ", ".join(sorted(each["responses"])),
        )
        for path, methods in print_openapi.document(service)["paths"].items()
        for method, each in methods.items()
    ]
    return table(("operation", "what it does", "query", "body", "answers"), rows)


def _body(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return type_of(content["schema"]) if content else ""


# ---- providers ----


def capabilities() -> str:
    """A column for every provider with an adapter, a row for every capability."""
    names = [name for name in Capabilities.model_fields if name != "engine_modes"]
    rows = [(name, *("yes" if getattr(each.capabilities, name) else "–" for each in ADAPTERS.values())) for name in names]
    modes = ("engine modes", *(", ".join(each.capabilities.engine_modes) or "–" for each in ADAPTERS.values()))
    pinned = ("pinned engine", *(each.install.pinned or "–" for each in ADAPTERS.values()))
    credentials = ("credentials", *(", ".join(f"`{one}`" for one in each.credentials.names) or "–" for each in ADAPTERS.values()))
    return table(("", *(f"`{name}`" for name in ADAPTERS)), [*rows, modes, pinned, credentials])


def engine_modes() -> str:
    """What each engine is told in each mode, and what becomes of what it asks for beyond that."""
    rows = [(f"`{mode}`", row.asked.value, *(told(each, mode) for each in ADAPTERS)) for mode, row in MODES.items()]
    return table(("", "asked for more", *(f"`{each}`" for each in ADAPTERS)), rows)


def takes() -> str:
    """A row for everything that callers give engines alike, a column for every engine that can be had."""
    columns = list(TAKES.values())
    tools = [f"{_codes(each.tools)}{', any by its own name' if each.any_tool else ''}" for each in columns]
    rows = [
        ("tools that can be switched off", *tools),
        ("tool servers (`providerOptions.mcpServers`)", *(", ".join(each.servers) for each in columns)),
        ("skills it finds", *(each.skills for each in columns)),
        ("instructions it reads", *(", ".join(each.instructions) for each in columns)),
        ("options beyond those all know", *(_codes(each.options) for each in columns)),
    ]
    return table(("", *(f"`{each}`" for each in TAKES)), rows)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "–"


def providers() -> str:
    rows = [
        (
            f"`{provider}`",
            ", ".join(f"`{alias}`" for alias, meant in ALIASES.items() if meant is provider) or "–",
            f"no: {CLOSED[provider]}" if provider in CLOSED else "yes" if provider in ADAPTERS else "no adapter yet",
        )
        for provider in Provider
    ]
    return table(("provider", "also taken as", "can run"), rows)


# ---- timeouts ----


def timeouts() -> str:
    rows: list[tuple[str, ...]] = []
    for provider, each in tomllib.loads(TIMEOUTS.read_text("utf-8")).items():
        for rule in each.get("model_rules", []):
            rows.append((f"`{provider}`", f"`{rule['pattern']}`", rule.get("mode", "includes"), str(rule["timeout_ms"])))
        rows.append((f"`{provider}`", "any other", "", str(each["default_timeout_ms"])))
    return table(("provider", "model", "mode", "ms"), rows)


PARTS = {
    "envelope": Part(f"{REFERENCE}/events.md", envelope),
    "payloads": Part(f"{REFERENCE}/events.md", payloads),
    "flat frames": Part(f"{REFERENCE}/events.md", flat_frames),
    "control-plane operations": Part(f"{REFERENCE}/http.md", lambda: operations("control-plane")),
    "executor-manager operations": Part(f"{REFERENCE}/http.md", lambda: operations("executor-manager")),
    "executor operations": Part(f"{REFERENCE}/http.md", lambda: operations("executor")),
    "providers": Part(f"{REFERENCE}/capabilities.md", providers),
    "capabilities": Part(f"{REFERENCE}/capabilities.md", capabilities),
    "what engines take": Part(f"{REFERENCE}/capabilities.md", takes),
    "engine modes": Part(f"{REFERENCE}/capabilities.md", engine_modes),
    "timeouts": Part(f"{REFERENCE}/timeouts.md", timeouts),
}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
