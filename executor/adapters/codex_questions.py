"""What Codex asks people, as our questions; and their replies, in Codex's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from executor.adapters.capping import bounded
from executor.adapters.codex_asks import AskCommand, Asked, AskEdit, AskedQuestion, AskMcp, AskUser
from executor.adapters.codex_items import changes_of
from executor.adapters.codex_protocol import FileDiff
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option, Reply

DECISIONS: Mapping[Decision, str] = MappingProxyType(
    {
        Decision.ACCEPT: "accept",
        Decision.ACCEPT_FOR_SESSION: "acceptForSession",
        Decision.DECLINE: "decline",
        Decision.DECLINE_AND_STOP: "cancel",
    }
)


def question_of(asked: Asked, diffs: Sequence[FileDiff]) -> dict[str, Any]:
    """The fields of our question. ``diffs`` are those of the edit asked about: Codex sends them before, with the item."""
    match asked:
        case AskCommand(command=command, cwd=cwd, reason=reason):
            tool = AskedTool(name="shell", input={"command": command, "cwd": cwd})
            return {"type": InteractionType.PERMISSION, "prompt": reason or f"May it run {command}?", "tool": tool}
        case AskEdit(reason=reason, grant_root=root):
            changes, _ = changes_of(diffs)
            tool = AskedTool(name="edit", input={"changes": changes} | ({"grantRoot": root} if root else {}))
            paths = ", ".join(change.path for change in diffs)
            return {"type": InteractionType.PERMISSION, "prompt": reason or f"May it change {paths}?", "tool": tool}
        case AskMcp(server_name=server, meta=meta):
            name = f"{server}.{meta.tool_name if meta is not None else ''}"
            shown, _ = bounded(meta.tool_params if meta is not None else None)
            tool = AskedTool(name=name, input=shown if isinstance(shown, dict) else {"truncated": shown})  # pyright: ignore[reportUnknownArgumentType]
            return {"type": InteractionType.PERMISSION, "prompt": f"May it use {name}?", "tool": tool}
        case AskUser(questions=[one]):
            return {"type": InteractionType.QUESTION, "prompt": one.question, "options": _options(one)}
        case AskUser(questions=many):
            prompt = "\n".join(each.question for each in many)
            return {"type": InteractionType.QUESTION, "prompt": prompt, "schema_": _schema(many)}


def decided(asked: Asked, decision: Decision) -> dict[str, Any]:
    """Codex's answer to a permission."""
    if not isinstance(asked, AskMcp):
        return {"decision": DECISIONS[decision]}
    match decision:
        case Decision.ACCEPT:
            return {"action": "accept", "content": {}, "_meta": None}
        case Decision.ACCEPT_FOR_SESSION:
            return {"action": "accept", "content": {}, "_meta": {"persist": "session"}}
        case Decision.DECLINE:
            return {"action": "decline", "content": None, "_meta": None}
        case Decision.DECLINE_AND_STOP:
            return {"action": "cancel", "content": None, "_meta": None}


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


def answers_to(asked: AskUser, answer: Answer | None) -> dict[str, Any]:
    """``{question id: {"answers": [...]}}``; a person may name a question by its id, its header or its text.

    One text answers the first question; a list answers one question with all its entries, several with one each.
    """
    questions = asked.questions
    given: list[list[str]] = [[] for _ in questions]
    if isinstance(answer, dict):
        given = [_texts(_named(each, answer)) for each in questions]
    elif isinstance(answer, list) and len(questions) > 1:
        given = [answer[at : at + 1] for at in range(len(questions))]
    elif answer is not None and questions:
        given[0] = _texts(answer)
    return {"answers": {each.id: {"answers": texts} for each, texts in zip(questions, given, strict=True)}}


def _named(question: AskedQuestion, answers: Mapping[str, Any]) -> Any:
    return next((answers[name] for name in (question.id, question.header, question.question) if name in answers), None)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _options(question: AskedQuestion) -> list[Option]:
    return [Option(label=each.label, description=each.description) for each in question.options or []]


def _schema(questions: Sequence[AskedQuestion]) -> dict[str, Any]:
    """A JSON Schema of the answers, by question id; ``examples`` because people may also answer in their own words."""
    properties = {
        each.id: {"type": "string", "title": each.header or each.question, "description": each.question}
        | ({"examples": [option.label for option in each.options]} if each.options else {})
        for each in questions
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
