"""Cutting an engine's byte streams into lines: on ``\\n`` only, with each line's absolute byte span, in bounded memory.

Nothing here may decode text or know a protocol. A line that passes the bound is skipped to its newline and reported once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from executor.adapters.base import Stream

MAX_LINE_BYTES = 8 * 1024 * 1024
HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line without its newline: ``data`` is [byte_from, byte_to) of ``stream``."""

    stream: Stream
    data: bytes
    byte_from: int
    byte_to: int


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """A line of ``length`` bytes that was not kept; its bytes are [byte_from, byte_to) of ``stream``.

    ``head`` is how it began: enough to tell what was lost with it.
    """

    stream: Stream
    length: int
    byte_from: int
    byte_to: int
    head: bytes = field(default=b"", compare=False)


Framed = Line | LineTooLong


@dataclass(slots=True)
class _Position:
    """How far one stream was read: where its unfinished line began, what is kept of it, how long it is by now."""

    line_from: int = 0
    kept: list[bytes] = field(default_factory=list[bytes])
    length: int = 0


class Lines:
    """Lines of any number of streams. Any split of the same bytes gives the same lines.

    Holds at most ``max_line_bytes`` of a stream: a line that passes it is dropped as it grows and becomes one ``LineTooLong``.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._positions: dict[Stream, _Position] = {}

    def feed(self, stream: Stream, chunk: bytes) -> list[Framed]:
        """The lines that ``chunk`` completes."""
        position = self._positions.setdefault(stream, _Position())
        *whole, rest = chunk.split(b"\n")
        lines: list[Framed] = []
        for part in whole:
            self._keep(position, part)
            lines.append(self._cut(stream, position, newline=1))
        self._keep(position, rest)
        return lines

    def end_of(self, stream: Stream) -> list[Framed]:
        """The unfinished last line of a stream that is complete, if it has one."""
        position = self._positions.get(stream)
        if position is None or position.length == 0:
            return []
        return [self._cut(stream, position, newline=0)]

    def _keep(self, position: _Position, part: bytes) -> None:
        position.length += len(part)
        if position.length > self._max_line_bytes:
            position.kept = [b"".join((*position.kept, part))[:HEAD_BYTES]]
        elif part:
            position.kept.append(part)

    def _cut(self, stream: Stream, position: _Position, newline: int) -> Framed:
        start, length = position.line_from, position.length
        data = b"".join(position.kept)
        position.kept.clear()
        position.line_from, position.length = start + length + newline, 0
        if length > self._max_line_bytes:
            return LineTooLong(stream, length, start, start + length, data)
        return Line(stream, data, start, start + length)
