"""How much of an engine's text goes into one event. The engine's own bytes stay in its log, whole."""

from __future__ import annotations

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
