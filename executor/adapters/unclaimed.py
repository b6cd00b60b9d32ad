"""Lines no semantic event claimed: they are shown as they are, without terminal colours, within a bound."""

from __future__ import annotations

import re

from executor.adapters.base import STDERR, Emit, Step
from executor.adapters.capping import MAX_RAW_BYTES, capped
from executor.adapters.framing import Framed, Line, LineTooLong
from shared.contracts.events import Diagnostic, Payload, RawStderr, RawStdout

_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def raw(line: Line) -> list[Step]:
    """``raw.stdout`` or ``raw.stderr``; nothing for a blank line."""
    text = _TERMINAL_CODES.sub("", line.data.decode("utf-8", "replace")).rstrip("\r")
    if not text.strip():
        return []
    kind = RawStderr if line.stream == STDERR else RawStdout
    shown, truncated = capped(text, MAX_RAW_BYTES)
    return [Emit(kind(text=shown, truncated=truncated), line.byte_from, line.byte_to)]


def too_long(line: LineTooLong) -> list[Step]:
    return [note(line, "line_too_long", f"a line of {line.length} bytes on {line.stream} was not read")]


def undecodable(line: Line, why: str) -> list[Step]:
    """A line of a kind we know whose content we cannot read."""
    text, _ = capped(line.data.decode("utf-8", "replace"), MAX_RAW_BYTES)
    return [note(line, "undecodable_line", f"{why}: {text}")]


def note(line: Framed, code: str, message: str) -> Emit:
    payload: Payload = Diagnostic(code=code, severity="warning", message=message)
    return Emit(payload, line.byte_from, line.byte_to)


def untaken(count: int, engine: str) -> list[Step]:
    """Further messages that an engine had not taken when nothing more is said to it: they are never lost in silence."""
    said = f"{count} further message(s) had not been taken when {engine} ended"
    return [Emit(Diagnostic(code="message_undeliverable", message=said))] if count else []
