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

from executor.adapters.acp.protocol import AskPermission, PermissionOption, RpcId, ToolCall
from executor.adapters.replies import UserQuestion, answers_to, question_fields
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option

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


class AskedQuestion(msgspec.Struct, rename="camel"):
    question: str
    header: str = ""
    options: list[QuestionOption] = []
    multi_select: bool = False


class UserQuestions(msgspec.Struct):
    questions: list[AskedQuestion]


@dataclass(frozen=True, slots=True)
class Asked:
    """An open request of the engine: about which tool, with which options; ``questions`` when it is one to the user."""

    rpc_id: RpcId
    tool_call_id: str
    options: Sequence[PermissionOption]
    questions: Sequence[AskedQuestion] = ()


def asked_of(rpc_id: RpcId, ask: AskPermission) -> Asked:
    """Raises ``msgspec.DecodeError`` for a question to the user that we cannot read."""
    call = ask.tool_call
    is_question = call.meta is not None and call.meta.qwen_interaction_kind == USER_QUESTION
    questions = msgspec.convert(call.raw_input, type=UserQuestions).questions if is_question else []
    return Asked(rpc_id, call.tool_call_id, ask.options, questions)


def question_of(asked: Asked, call: ToolCall, tool: AskedTool) -> dict[str, Any]:
    """The fields of our question."""
    if asked.questions:
        return question_fields(_by_position(asked))
    return {"type": InteractionType.PERMISSION, "prompt": f"May it use {tool.name}: {call.title or 'it'}?", "tool": tool}


def outcome_of(asked: Asked, decision: Decision) -> dict[str, Any]:
    """ACP's answer; ``cancelled`` where the engine offers no option of a fitting kind."""
    offered = {option.kind: option.option_id for option in reversed(asked.options)}
    chosen = next((offered[kind] for kind in KINDS[decision] if kind in offered), None)
    return {"outcome": {"outcome": "cancelled"} if chosen is None else {"outcome": "selected", "optionId": chosen}}


def answers_of(asked: Asked, answer: Answer | None) -> dict[str, Any]:
    """ACP's answer to questions to the user: the texts by each question's position, beside the option that submits them."""
    texts = enumerate(answers_to(_by_position(asked), answer))
    return outcome_of(asked, Decision.ACCEPT) | {"answers": {str(at): ", ".join(each) for at, each in texts if each is not None}}


def _by_position(asked: Asked) -> list[UserQuestion]:
    return [
        UserQuestion(str(at), each.question, each.header, _options(each), each.multi_select)
        for at, each in enumerate(asked.questions)
    ]


def _options(asked: AskedQuestion) -> list[Option]:
    return [Option(label=each.label, description=each.description) for each in asked.options]
