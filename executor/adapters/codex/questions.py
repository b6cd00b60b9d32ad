"""What Codex asks people, as our questions; and their replies, in Codex's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from executor.adapters import engine_modes
from executor.adapters.capping import MAX_REASON_BYTES, MAX_TOOL_BYTES, bounded, capped
from executor.adapters.codex.asks import AskCommand, Asked, AskEdit, AskedQuestion, AskMcp, AskUser
from executor.adapters.codex.items import changes_of
from executor.adapters.codex.protocol import FileDiff
from executor.adapters.replies import UserQuestion, answers_to, decision_of, question_fields
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option, Reply
from shared.contracts.providers import EngineMode

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
            shown, truncated = (None, None) if command is None else capped(command, MAX_TOOL_BYTES)
            tool = AskedTool(name="shell", input={"command": shown, "cwd": cwd} | _cut(truncated))
            return _permission(reason or f"May it run {command}?", tool)
        case AskEdit(reason=reason, grant_root=root):
            changes, truncated = changes_of(diffs)
            granted = {"grantRoot": root} if root else {}
            tool = AskedTool(name="edit", input={"changes": changes} | granted | _cut(truncated))
            return _permission(reason or f"May it change {', '.join(change.path for change in diffs)}?", tool)
        case AskMcp(server_name=server, meta=meta):
            name = f"{server}.{meta.tool_name if meta is not None else ''}"
            shown, _ = bounded(meta.tool_params if meta is not None else None)
            tool = AskedTool(name=name, input=shown if isinstance(shown, dict) else {"truncated": shown})  # pyright: ignore[reportUnknownArgumentType]
            return _permission(f"May it use {name}?", tool)
        case AskUser():
            return question_fields(_questions(asked))


def decided_by(mode: EngineMode, asked: Asked) -> Decision | None:
    """What the engine mode says by itself; None where a person is asked. What the model asks its user is no permission."""
    return None if isinstance(asked, AskUser) else engine_modes.decided(mode)


def decision_in(asked: Asked, reply: Reply) -> Decision | None:
    """None: it answers a question."""
    return reply.decision if isinstance(asked, AskUser) else decision_of(reply)


def answer_to(asked: Asked, reply: Reply) -> dict[str, Any]:
    """Codex's answer, whatever was asked."""
    return _answers_of(asked, reply.answer) if isinstance(asked, AskUser) else decided(asked, decision_of(reply))


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


def _answers_of(asked: AskUser, answer: Answer | None) -> dict[str, Any]:
    """``{question id: {"answers": [...]}}``."""
    questions = _questions(asked)
    given = zip(questions, answers_to(questions, answer), strict=True)
    return {"answers": {each.key: {"answers": texts or []} for each, texts in given}}


def _permission(prompt: str, tool: AskedTool) -> dict[str, Any]:
    return {"type": InteractionType.PERMISSION, "prompt": capped(prompt, MAX_REASON_BYTES)[0], "tool": tool}


def _cut(truncated: bool | None) -> dict[str, bool]:
    """Who decides must know that not all is shown."""
    return {"truncated": True} if truncated else {}


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
