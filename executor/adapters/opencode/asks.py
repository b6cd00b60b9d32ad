"""What OpenCode asks people by its HTTP server, as our questions; and their replies, as its requests.

Two lists stand there, one of questions to the user and one of permissions. Shapes and words only: what is asked when, and what
becomes of it, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from executor.adapters.acp.conversation import DECLINED
from executor.adapters.capping import bounded
from executor.adapters.engine_json import Decoder
from executor.adapters.replies import UserQuestion, answers_to, decision_of, question_fields, reason_of
from shared.contracts.interactions import AskedTool, Decision, InteractionType, Option, Reply

NO_ANSWER = "The user does not want to answer that. Go on without it."
_NAMES = {"bash": "shell"}
_REPLIES = {Decision.ACCEPT: "once", Decision.ACCEPT_FOR_SESSION: "always"}
_KEPT_BACK = frozenset({"always", "filediff"})


class Choice(Struct, frozen=True):
    label: str
    description: str | None = None


class AskedQuestion(Struct, frozen=True):
    question: str
    header: str = ""
    options: tuple[Choice, ...] = ()
    multiple: bool = False


class Caller(Struct, frozen=True):
    call_id: str = field(name="callID", default="")


class AskedQuestions(Struct, frozen=True):
    """One call of its question tool."""

    id: str
    questions: tuple[AskedQuestion, ...]
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
        return Decoder(list[self.kind]).decode(body)


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
        case AskedQuestions():
            return question_fields(_by_position(asked))


def said_to(asked: Asking, reply: Reply) -> Said:
    """A question that is declined ends the engine's turn: a message goes on with it. A permission carries its own word."""
    if isinstance(asked, AskedPermission):
        return _decided(asked, decision_of(reply), reason_of(reply))
    if reply.decision in {Decision.DECLINE, Decision.DECLINE_AND_STOP}:
        then_say = f"{NO_ANSWER} They say: {reply.message}" if reply.message else NO_ANSWER
        return Said(f"/question/{asked.id}/reject", b"", then_say=then_say)
    return Said(
        f"/question/{asked.id}/reply", _json({"answers": [each or [] for each in answers_to(_by_position(asked), reply.answer)]})
    )


def unasked(asked: AskedPermission, decision: Decision) -> Said:
    """Nobody is asked."""
    return _decided(asked, decision, None)


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


def _by_position(asked: AskedQuestions) -> list[UserQuestion]:
    return [
        UserQuestion(str(at), each.question, each.header, _options(each), each.multiple)
        for at, each in enumerate(asked.questions)
    ]


def _options(asked: AskedQuestion) -> list[Option]:
    return [Option(label=each.label, description=each.description) for each in asked.options]


def _json(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)
