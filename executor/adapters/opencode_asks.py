"""What OpenCode asks people by its HTTP server, as our questions; and their replies, as its requests.

Two lists stand there, one of questions to the user and one of permissions. Shapes and words only: what is asked when, and what
becomes of it, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from executor.adapters.acp import DECLINED
from executor.adapters.acp_questions import decision_of, reason_of
from executor.adapters.capping import bounded
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option, Reply

NO_ANSWER = "The user does not want to answer that. Go on without it."
_NAMES = {"bash": "shell"}
_REPLIES = {Decision.ACCEPT: "once", Decision.ACCEPT_FOR_SESSION: "always"}
_KEPT_BACK = frozenset({"always", "filediff"})


class Choice(Struct, frozen=True):
    label: str
    description: str | None = None


class UserQuestion(Struct, frozen=True):
    question: str
    header: str = ""
    options: tuple[Choice, ...] = ()


class Caller(Struct, frozen=True):
    call_id: str = field(name="callID", default="")


class AskedQuestions(Struct, frozen=True):
    """One call of its question tool."""

    id: str
    questions: tuple[UserQuestion, ...]
    session_id: str = field(name="sessionID", default="")
    tool: Caller | None = None


class AskedPermission(Struct, frozen=True):
    id: str
    permission: str
    session_id: str = field(name="sessionID", default="")
    patterns: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    tool: Caller | None = None


Asking = AskedQuestions | AskedPermission


@dataclass(frozen=True, slots=True)
class Board:
    """A list of what waits for an answer: where it is read, and what stands in it."""

    path: str
    kind: type[Asking]

    def read(self, body: bytes) -> list[Asking]:
        """Raises ``msgspec.DecodeError``."""
        return msgspec.json.decode(body, type=list[self.kind])


# By how the ids of what stands there begin.
BOARDS: Mapping[str, Board] = {"que": Board("/question", AskedQuestions), "per": Board("/permission", AskedPermission)}


@dataclass(frozen=True, slots=True)
class Said:
    """A reply as the server takes it. ``then_say``: what the model must be told as a message besides."""

    path: str
    body: bytes
    then_say: str | None = None


def fields_of(asked: Asking) -> dict[str, Any]:
    """The fields of our question."""
    match asked:
        case AskedPermission():
            return _permission(asked)
        case AskedQuestions(questions=[one]):
            options = [Option(label=each.label, description=each.description) for each in one.options]
            return {"type": InteractionType.QUESTION, "prompt": one.question, "options": options}
        case AskedQuestions(questions=many):
            prompt = "\n".join(each.question for each in many)
            return {"type": InteractionType.QUESTION, "prompt": prompt, "schema_": _schema(many)}


def said_to(asked: Asking, reply: Reply) -> Said:
    """A question that is declined ends the engine's turn: a message goes on with it. A permission carries its own word."""
    if isinstance(asked, AskedPermission):
        return _decided(asked, decision_of(reply), reason_of(reply))
    if reply.decision in {Decision.DECLINE, Decision.DECLINE_AND_STOP}:
        then_say = f"{NO_ANSWER} They say: {reply.message}" if reply.message else NO_ANSWER
        return Said(f"/question/{asked.id}/reject", b"", then_say=then_say)
    return Said(f"/question/{asked.id}/reply", _json({"answers": _answers(asked.questions, reply.answer)}))


def refused(asked: AskedPermission) -> Said:
    """Nobody is asked."""
    return _decided(asked, Decision.DECLINE, None)


def _decided(asked: AskedPermission, decision: Decision, reason: str | None) -> Said:
    path = f"/permission/{asked.id}/reply"
    if decision in _REPLIES:
        return Said(path, _json({"reply": _REPLIES[decision]}))
    if decision is Decision.DECLINE_AND_STOP:
        return Said(path, _json({"reply": "reject"}))
    message = f"{DECLINED} They say: {reason}" if reason else DECLINED
    return Said(path, _json({"reply": "reject", "message": message}))


def _permission(asked: AskedPermission) -> dict[str, Any]:
    name = _NAMES.get(asked.permission, asked.permission)
    told = {name: value for name, value in asked.metadata.items() if name not in _KEPT_BACK}
    input, _ = bounded(told or {"patterns": list(asked.patterns)})
    tool = AskedTool(name=name, input=input if isinstance(input, dict) else {"json": input})  # pyright: ignore[reportUnknownArgumentType]
    what = asked.metadata.get("command") or asked.metadata.get("filepath") or ", ".join(asked.patterns) or "it"
    return {"type": InteractionType.PERMISSION, "prompt": f"May a sub-agent use {name}: {what}?", "tool": tool}


def _answers(questions: Sequence[UserQuestion], answer: Answer | None) -> list[list[str]]:
    """The texts by each question's position; none is its word for a question that was not answered.

    A person may name a question by its position, its header or its text. One text answers the first question; a list answers one
    question with all its entries, several with one each.
    """
    given: list[Any] = [None for _ in questions]
    if isinstance(answer, dict):
        named = [(str(at), each.header, each.question) for at, each in enumerate(questions)]
        given = [next((answer[name] for name in names if name in answer), None) for names in named]
    elif isinstance(answer, list) and len(questions) > 1:
        given = [answer[at] if at < len(answer) else None for at in range(len(questions))]
    elif given:
        given[0] = answer
    return [_texts(each) for each in given]


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _schema(questions: Sequence[UserQuestion]) -> dict[str, Any]:
    """A JSON Schema of the answers, by position; ``examples`` because people may also answer in their own words."""
    properties = {
        str(at): {"type": "string", "title": each.header or each.question, "description": each.question}
        | ({"examples": [option.label for option in each.options]} if each.options else {})
        for at, each in enumerate(questions)
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)
