"""The questions of one attempt: which are open, and what was answered, so that a reply is handed over once."""

from __future__ import annotations

from typing import Any

from shared.contracts.events import AttemptOutcome
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.errors import ErrorCode, RunyardError, invalid

_WAITING_ON = frozenset({AttemptOutcome.LOST, AttemptOutcome.PARKED})

UNREADABLE = "The question is too large, or nested too deeply, to be put to a person."
DECLINED = Reply(decision=Decision.DECLINE, message=UNREADABLE)


class Questions:
    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._open: dict[str, InteractionType] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._are_kept = False

    @property
    def open(self) -> list[str]:
        """In the order they were asked."""
        return list(self._open)

    def ask(self, question_id: str, type_: InteractionType) -> bool:
        """False when it was asked before."""
        if question_id in self._asked:
            return False
        self._asked.add(question_id)
        self._open[question_id] = type_
        return True

    def keep(self) -> None:
        """Their engine is being parked: whatever it says while it ends, a person is still asked."""
        self._are_kept = True

    def to_withdraw(self, outcome: AttemptOutcome) -> list[str]:
        """What ends with its attempt. One that was lost or parked withdraws nothing: its run waits on for the reply."""
        if outcome in _WAITING_ON:
            return []
        self._are_kept = False
        return self.open

    def close(self, question_id: str) -> bool:
        """False when it was not open, or stays so."""
        if self._are_kept or question_id not in self._open:
            return False
        del self._open[question_id]
        return True

    def is_repeat(self, question_id: str, answer: dict[str, Any]) -> bool:
        """Whether this very answer was given before. Raises ``conflict`` when another one was, or none can be, and
        ``invalid_request`` for one that decides nothing."""
        if question_id in self._answers:
            if self._answers[question_id] == answer:
                return True
            raise RunyardError(ErrorCode.CONFLICT, f"question {question_id} has another answer")
        if question_id not in self._open:
            raise RunyardError(ErrorCode.CONFLICT, f"question {question_id} is not open")
        if self._open[question_id] is not InteractionType.QUESTION and not isinstance(answer.get("answer", ""), str):
            raise invalid("answer", f"a {self._open[question_id]} takes a decision, or a text")
        return False

    def answered(self, question_id: str, answer: dict[str, Any]) -> None:
        self._answers[question_id] = answer


def answer_of(reply: Reply) -> dict[str, Any]:
    """A reply as it is recorded and told."""
    return reply.model_dump(mode="json", by_alias=True, exclude_none=True, include={"answer", "decision", "message"})
