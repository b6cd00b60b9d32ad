"""An engine under the user's own arguments, as the harness runs it: nothing is added, nothing is said, everything is read.

What an engine prints in a form we know becomes the same events as in a run; everything else is raw lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from executor.adapters.base import STDOUT, Command, Outcome, Step, Stream
from executor.adapters.exits import outcome_of_exit
from executor.adapters.framing import Framed, Line, Lines, LineTooLong
from executor.adapters.unclaimed import raw, too_long, undecodable
from shared.contracts.events import AttemptOutcome
from shared.contracts.interactions import Reply
from shared.errors import ErrorCode, RunyardError


class Reader(Protocol):
    """One engine's lines of stdout as events. Owns no I/O."""

    def read(self, line: Line) -> list[Step] | None:
        """The events of a line; None for one of no form we know. Raises ``msgspec.DecodeError`` for one of a known form."""
        ...

    def finished(self) -> list[Step]:
        """Stdout is complete."""
        ...

    def ended(self, exit_code: int | None) -> Outcome | None:
        """How it ended by its own word; None where it gave none."""
        ...


class PassedThrough:
    """A conversation in which only the engine speaks. ``reader`` None: its output is not in a form we know."""

    def __init__(self, executable: str, arguments: Sequence[str], reader: Reader | None = None) -> None:
        self.command = Command((executable, *arguments))
        self._reader = reader
        self._lines = Lines()
        self._was_understood = False

    def opened(self) -> list[Step]:
        return []

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        return [step for line in self._lines.feed(stream, chunk) for step in self._on_line(line)]

    def end_of(self, stream: Stream) -> list[Step]:
        steps = [step for line in self._lines.end_of(stream) for step in self._on_line(line)]
        return [*steps, *self._reader.finished()] if stream == STDOUT and self._reader is not None else steps

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        raise RunyardError(ErrorCode.CONFLICT, f"no question {question_id} is open")

    def message(self, text: str) -> list[Step]:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, "the harness says nothing to an engine")

    def interrupt(self) -> list[Step]:
        return []

    def ended(self, exit_code: int | None) -> Outcome:
        told = self._reader.ended(exit_code) if self._reader is not None else None
        if told is None and exit_code == 0 and not self._was_understood:
            return Outcome(AttemptOutcome.SUCCESS)  # `--help`, or a form for people: its status is all we know of it
        return told or outcome_of_exit(exit_code)

    def _on_line(self, line: Framed) -> list[Step]:
        if isinstance(line, LineTooLong):
            return too_long(line)
        if self._reader is None or line.stream != STDOUT or not line.data.startswith(b"{"):
            return raw(line)
        try:
            steps = self._reader.read(line)
        except msgspec.DecodeError as error:
            return undecodable(line, str(error))
        if steps is None:
            return raw(line)
        self._was_understood = True
        return steps


@dataclass(frozen=True, slots=True)
class Form:
    """How the harness reads an engine and goes on with its session (by handle, message and the user's own arguments).

    What is None it cannot.
    """

    reader: Callable[[], Reader] | None = None
    resume: Callable[[str, str, Sequence[str]], tuple[str, ...]] | None = None
