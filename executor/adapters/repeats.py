"""Streamed text that an engine says again after a broken stream is shown once.

Engines retry a broken model stream by asking again, and what comes then is streamed from its first word, under a new id. While
it says what was said before, nothing is shown; from where it goes on, it goes on as the same message; where it differs, it is a
new message and the broken one is given up. Nothing here knows an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shown:
    """What is news: more text of a message, its whole text at its end, or that a broken message will never end."""

    what: Literal["delta", "completed", "given_up"]
    message_id: str
    text: str = ""


@dataclass(slots=True)
class _Told:
    """A message of the current answer: what was shown of it, and how far it has been repeated (None: it is not being)."""

    message_id: str
    parts: list[str] = field(default_factory=list[str])
    is_complete: bool = False
    repeated: int | None = None

    def text(self) -> str:
        if len(self.parts) > 1:
            self.parts[:] = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""


class Repeats:
    """Tells news from repetition. Any number of messages, in the order the engine sends them."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._again: list[_Told] = []

    def broken(self) -> None:
        """The stream broke: everything of this answer may be said again."""
        self._again = [*self._told.values(), *self._again]
        self._told = {}

    def settled(self) -> None:
        """The answer arrived whole: what comes now is new."""
        self._told, self._again = {}, []

    def delta(self, engine_id: str, text: str) -> Sequence[Shown]:
        told = self._counterpart(engine_id)
        if told.repeated is None:
            told.parts.append(text)
            return [Shown("delta", told.message_id, text)]
        before, at = told.text(), told.repeated
        expected = before[at : at + len(text)]
        told.repeated = at + len(text)
        if expected == text:
            return []
        if not told.is_complete and text.startswith(expected) and at + len(expected) == len(before):
            told.repeated = None
            told.parts.append(text[len(expected) :])
            return [Shown("delta", told.message_id, text[len(expected) :])]
        return [*self._give_up(told), *self._anew(engine_id, before[:at] + text)]

    def completed(self, engine_id: str, text: str) -> Sequence[Shown]:
        told = self._counterpart(engine_id)
        if told.is_complete and told.text() == text:
            return []
        if told.repeated is not None and (told.is_complete or not text.startswith(told.text())):
            given_up = self._give_up(told)
            self._told[engine_id] = told = _Told(engine_id)
            return [*given_up, self._complete(told, text)]
        return [self._complete(told, text)]

    def _counterpart(self, engine_id: str) -> _Told:
        if engine_id not in self._told:
            told = self._again.pop(0) if self._again else _Told(engine_id)
            told.repeated = 0 if told.parts else None
            self._told[engine_id] = told
        return self._told[engine_id]

    def _complete(self, told: _Told, text: str) -> Shown:
        told.parts, told.is_complete, told.repeated = [text], True, None
        return Shown("completed", told.message_id, text)

    def _give_up(self, told: _Told) -> list[Shown]:
        return [] if told.is_complete else [Shown("given_up", told.message_id)]

    def _anew(self, engine_id: str, text: str) -> list[Shown]:
        self._told[engine_id] = _Told(engine_id, parts=[text])
        return [Shown("delta", engine_id, text)]
