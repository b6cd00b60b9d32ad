"""What Codex asks people, as our questions; and their replies, in Codex's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from executor.adapters.capping import bounded
from executor.adapters.codex_asks import AskCommand, Asked, AskEdit, AskedQuestion, AskMcp, AskUser
from executor.adapters.codex_items import changes_of
from executor.adapters.codex_protocol import FileDiff
from executor.adapters.replies import UserQuestion, answers_to, question_fields
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option

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
        case AskUser():
            return question_fields(_questions(asked))


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


def answers_of(asked: AskUser, answer: Answer | None) -> dict[str, Any]:
    """``{question id: {"answers": [...]}}``."""
    questions = _questions(asked)
    given = zip(questions, answers_to(questions, answer), strict=True)
    return {"answers": {each.key: {"answers": texts or []} for each, texts in given}}


def _questions(asked: AskUser) -> list[UserQuestion]:
    return [
        UserQuestion(
            each.id,
            each.question,
            each.header,
            _options(each),
        )
        for each in asked.questions
    ]


def _options(asked: AskedQuestion) -> list[Option]:
    return [Option(label=each.label, description=each.description) for each in asked.options or []]
