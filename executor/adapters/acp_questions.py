"""What an ACP engine asks people, as our questions; and their replies, in ACP's words.

A permission is answered by an option's kind, never by its label or id: those differ. A question to the user travels as a
permission too, where an engine has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from executor.adapters.acp_protocol import AskPermission, PermissionOption, RpcId, ToolCall
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option, Reply

ONCE, ALWAYS, NO = "allow_once", "allow_always", "reject_once"
# In this order; the first kind an engine offers is taken.
KINDS: Mapping[Decision, tuple[str, ...]] = MappingProxyType(
    {
        Decision.ACCEPT: (ONCE, ALWAYS),
        Decision.ACCEPT_FOR_SESSION: (ALWAYS, ONCE),
        Decision.DECLINE: (NO, "reject_always"),
        Decision.DECLINE_AND_STOP: (),
    }
)
USER_QUESTION = "user_question"


class QuestionOption(msgspec.Struct):
    label: str
    description: str | None = None


class UserQuestion(msgspec.Struct, rename="camel"):
    question: str
    header: str = ""
    options: list[QuestionOption] = []
    multi_select: bool = False


class UserQuestions(msgspec.Struct):
    questions: list[UserQuestion]


@dataclass(frozen=True, slots=True)
class Asked:
    """An open request of the engine: about which tool, with which options; ``questions`` when it is one to the user."""

    rpc_id: RpcId
    tool_call_id: str
    options: Sequence[PermissionOption]
    questions: Sequence[UserQuestion] = ()


def asked_of(rpc_id: RpcId, ask: AskPermission) -> Asked:
    """Raises ``msgspec.DecodeError`` for a question to the user that we cannot read."""
    call = ask.tool_call
    is_question = call.meta is not None and call.meta.qwen_interaction_kind == USER_QUESTION
    questions = msgspec.convert(call.raw_input, type=UserQuestions).questions if is_question else []
    return Asked(rpc_id, call.tool_call_id, ask.options, questions)


def question_of(asked: Asked, call: ToolCall, tool: AskedTool) -> dict[str, Any]:
    """The fields of our question."""
    match asked.questions:
        case []:
            return {"type": InteractionType.PERMISSION, "prompt": f"May it use {tool.name}: {call.title or 'it'}?", "tool": tool}
        case [one]:
            options = [Option(label=each.label, description=each.description) for each in one.options]
            return {"type": InteractionType.QUESTION, "prompt": one.question, "options": options}
        case many:
            prompt = "\n".join(each.question for each in many)
            return {"type": InteractionType.QUESTION, "prompt": prompt, "schema_": _schema(many)}


def decision_of(reply: Reply) -> Decision:
    """A permission's reply: its decision, or an answer that names one; any other answer declines and is the reason."""
    if reply.decision is not None:
        return reply.decision
    return Decision(reply.answer) if reply.answer in set(Decision) else Decision.DECLINE


def reason_of(reply: Reply) -> str | None:
    """What to tell the engine beside a «no»."""
    if reply.message is not None or reply.decision is not None:
        return reply.message
    return reply.answer if isinstance(reply.answer, str) and reply.answer not in set(Decision) else None


def outcome_of(asked: Asked, decision: Decision) -> dict[str, Any]:
    """ACP's answer; ``cancelled`` where the engine offers no option of a fitting kind."""
    offered = {option.kind: option.option_id for option in reversed(asked.options)}
    chosen = next((offered[kind] for kind in KINDS[decision] if kind in offered), None)
    return {"outcome": {"outcome": "cancelled"} if chosen is None else {"outcome": "selected", "optionId": chosen}}


def answers_to(asked: Asked, answer: Answer | None) -> dict[str, Any]:
    """ACP's answer to questions to the user: the texts by each question's position, beside the option that submits them.

    A person may name a question by its position, its header or its text. One text answers the first question; a list answers one
    question with all its entries, several with one each.
    """
    questions = asked.questions
    given: dict[str, str] = {}
    if isinstance(answer, dict):
        named = ((at, _named(each, at, answer)) for at, each in enumerate(questions))
        given = {str(at): _text(value) for at, value in named if value is not None}
    elif isinstance(answer, list) and len(questions) > 1:
        given = {str(at): text for at, text in enumerate(answer[: len(questions)])}
    elif answer is not None:
        given = {"0": _text(answer)}
    return outcome_of(asked, Decision.ACCEPT) | {"answers": given}


def _named(question: UserQuestion, at: int, answers: Mapping[str, Any]) -> Any:
    return next((answers[name] for name in (str(at), question.header, question.question) if name in answers), None)


def _text(value: Any) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _schema(questions: Sequence[UserQuestion]) -> dict[str, Any]:
    """A JSON Schema of the answers, by position; ``examples`` because people may also answer in their own words."""
    properties = {
        str(at): {"type": "string", "title": each.header or each.question, "description": each.question}
        | ({"examples": [option.label for option in each.options]} if each.options else {})
        for at, each in enumerate(questions)
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
