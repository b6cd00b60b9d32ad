"""The questions one engine process waits with: our id of each, and the engine's own handle to answer it by."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from shared.contracts.events import InteractionRequested, InteractionResolved
from shared.errors import ErrorCode, RunyardError

Handle = TypeVar("Handle")


class Questions(Generic[Handle]):
    """Open questions by our id, ``q<attempt>-<n>``. A question leaves exactly once: taken for its reply, or withdrawn.

    ``letter``: another than q where one process waits with questions of two kinds.
    """

    def __init__(self, attempt: int, letter: str = "q") -> None:
        self._prefix = f"{letter}{attempt}"
        self._asked = 0
        self._open: dict[str, Handle] = {}

    def open(self, handle: Handle, **asked: Any) -> InteractionRequested:
        """``asked`` are the further fields of the event: type, prompt, options, schema_, tool."""
        self._asked += 1
        question_id = f"{self._prefix}-{self._asked}"
        self._open[question_id] = handle
        return InteractionRequested(question_id=question_id, **asked)

    def __contains__(self, question_id: str) -> bool:
        return question_id in self._open

    def handle_of(self, question_id: str) -> Handle:
        """Of an open question."""
        return self._open[question_id]

    def take(self, question_id: str) -> Handle:
        """The handle of a question that is being answered. Raises ``RunyardError(conflict)`` when it is not open."""
        if question_id not in self._open:
            raise RunyardError(ErrorCode.CONFLICT, f"question {question_id} is not open")
        return self._open.pop(question_id)

    def withdraw(self, handle: Handle) -> list[InteractionResolved]:
        """The engine no longer waits for the answer to ``handle``; nothing when it is not open."""
        gone = [question_id for question_id, each in self._open.items() if each == handle]
        return [self._withdrawn(question_id) for question_id in gone]

    def withdraw_all(self) -> list[InteractionResolved]:
        return [self._withdrawn(question_id) for question_id in list(self._open)]

    def _withdrawn(self, question_id: str) -> InteractionResolved:
        del self._open[question_id]
        return InteractionResolved(question_id=question_id, how="withdrawn")
