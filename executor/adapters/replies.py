"""What people say to an engine, read once for all: a decision and its reason, or the answers to questions of its model.

How an engine puts its questions, and how it takes what is said, stands with the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.contracts.interactions import Answer, Decision, InteractionType, Option, Reply


@dataclass(frozen=True, slots=True)
class UserQuestion:
    """A question to the user. ``key``: what its answer is called by a caller that answers several.

    ``takes_several``: a list of texts is an answer to it, too.
    """

    key: str
    text: str
    header: str = ""
    options: Sequence[Option] = ()
    takes_several: bool = False


def decision_of(reply: Reply) -> Decision:
    """A permission's reply: its decision, or an answer that names one; any other answer declines, and a text is the reason."""
    if reply.decision is not None:
        return reply.decision
    return Decision(reply.answer) if isinstance(reply.answer, str) and reply.answer in set(Decision) else Decision.DECLINE


def reason_of(reply: Reply) -> str | None:
    """What to tell the engine beside a «no»."""
    if reply.message is not None or reply.decision is not None:
        return reply.message
    return reply.answer if isinstance(reply.answer, str) and reply.answer not in set(Decision) else None


def question_fields(questions: Sequence[UserQuestion]) -> dict[str, Any]:
    """The fields of our question: one has its options, several have a schema of their answers, as has one that takes several."""
    fields: dict[str, Any] = {"type": InteractionType.QUESTION, "prompt": "\n".join(each.text for each in questions)}
    if len(questions) != 1:
        return fields | {"schema_": _schema(questions)}
    [only] = questions
    return fields | {"options": list(only.options)} | ({"schema_": _answer_schema(only)} if only.takes_several else {})


def answers_to(questions: Sequence[UserQuestion], answer: Answer | None) -> list[list[str] | None]:
    """The texts for each question, None for one that was not answered.

    A person may name a question by its key, its header or its text. One text answers the first question; a list answers one
    question with all its entries, several with one each.
    """
    given: list[Any] = [None for _ in questions]
    if isinstance(answer, dict):
        named = [[name for name in (each.key, each.header, each.text) if name] for each in questions]
        given = [next((answer[name] for name in names if name in answer), None) for names in named]
    elif isinstance(answer, list) and len(questions) > 1:
        given = [answer[at] if at < len(answer) else None for at in range(len(questions))]
    elif given:
        given[0] = answer
    return [None if each is None else _texts(each) for each in given]


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _schema(questions: Sequence[UserQuestion]) -> dict[str, Any]:
    """A JSON Schema of the answers, by key."""
    properties = {each.key: _answer_schema(each) for each in questions}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _answer_schema(question: UserQuestion) -> dict[str, Any]:
    """``examples`` because people may also answer in their own words."""
    form: dict[str, Any] = {"type": "string"}
    if question.takes_several:
        form = {"type": ["string", "array"], "items": {"type": "string"}}
    examples = {"examples": [option.label for option in question.options]} if question.options else {}
    return {**form, "title": question.header or question.text, "description": question.text, **examples}
