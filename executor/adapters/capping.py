"""How much of an engine's text goes into one event. The engine's own bytes stay in its log, whole."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_TOOL_BYTES = 64 * 1024
MAX_RAW_BYTES = 16 * 1024
MAX_REASON_BYTES = 2 * 1024


def capped(text: str, max_bytes: int) -> tuple[str, bool | None]:
    """``text`` cut to ``max_bytes`` of UTF-8 at a character's border, and True when something was cut (else None)."""
    if len(text) * 4 <= max_bytes:
        return text, None
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, None
    return data[:max_bytes].decode("utf-8", "ignore"), True


def bounded(value: Any) -> tuple[Any, bool | None]:
    """A tool's input or output as it is, or the beginning of its JSON where that is longer than ``MAX_TOOL_BYTES``."""
    if value is None:
        return None, None
    if isinstance(value, str):
        return capped(value, MAX_TOOL_BYTES)
    text = msgspec.json.encode(value).decode()
    shown, truncated = capped(text, MAX_TOOL_BYTES)
    return (shown if truncated else value), truncated
