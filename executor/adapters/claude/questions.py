"""What Claude Code asks people, as our questions; and their replies, in its words.

Every question is one about a tool: a permission to use it, the question a tool carries, or the plan it hands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.claude.protocol import CanUseTool, objects_of
from executor.adapters.claude.tools import ASK_USER, EDIT, LEAVE_PLAN, SHELL, input_of, name_of
from executor.adapters.replies import UserQuestion, answers_to, decision_of, question_fields, reason_of
from shared.contracts.interactions import Answer, AskedTool, Decision, InteractionType, Option, Reply

DECLINED = "The user declined."
NOT_ANSWERED = "The user did not answer."
BESIDE_A_COMMAND = frozenset({"description", "timeout"})
AUTO_EDIT = {"type": "setMode", "mode": "acceptEdits", "destination": "session"}


def question_of(asked: CanUseTool) -> dict[str, Any]:
    """The fields of our question."""
    if asked.tool_name == ASK_USER:
        return question_fields(_questions(asked))
    if asked.tool_name == LEAVE_PLAN:
        prompt = str(asked.input.get("plan") or "May it carry out its plan?")
        return {"type": InteractionType.PLAN, "prompt": prompt}
    shown, _ = input_of(asked.tool_name, asked.input)
    tool = AskedTool(name=name_of(asked.tool_name), input=shown if isinstance(shown, dict) else {"truncated": shown})  # pyright: ignore[reportUnknownArgumentType]
    return {"type": InteractionType.PERMISSION, "prompt": capped(_prompt(asked), MAX_REASON_BYTES)[0], "tool": tool}


def answer_to(asked: CanUseTool, reply: Reply) -> dict[str, Any]:
    """The whole answer, for every kind of question."""
    if asked.tool_name == ASK_USER and reply.answer is not None:
        return allowed(asked) | {"updatedInput": asked.input | {"answers": _answers(_questions(asked), reply.answer)}}
    decision = decision_of(reply)
    if asked.tool_name == ASK_USER and decision in (Decision.ACCEPT, Decision.ACCEPT_FOR_SESSION):
        return denied(NOT_ANSWERED)
    match decision:
        case Decision.ACCEPT:
            return allowed(asked)
        case Decision.ACCEPT_FOR_SESSION:
            granted = _for_session(asked)
            return allowed(asked) | ({"updatedPermissions": granted} if granted else {})
        case Decision.DECLINE:
            return denied(reason_of(reply) or DECLINED)
        case Decision.DECLINE_AND_STOP:
            return denied(reason_of(reply) or DECLINED) | {"interrupt": True}


def deed_of(asked: CanUseTool) -> str:
    """What is asked about, to know it again: a shell command whatever is said of it, anything else in every detail.

    The engine's own rules do not cover all of a command, so that it would ask about the same one again.
    """
    is_command = name_of(asked.tool_name) == SHELL
    what = {name: value for name, value in asked.input.items() if not (is_command and name in BESIDE_A_COMMAND)}
    return f"{asked.tool_name} {msgspec.json.encode(what, order='deterministic').decode()}"


def allowed(asked: CanUseTool) -> dict[str, Any]:
    return {"behavior": "allow", "updatedInput": asked.input}


def denied(why: str) -> dict[str, Any]:
    return {"behavior": "deny", "message": why}


def _prompt(asked: CanUseTool) -> str:
    match name_of(asked.tool_name):
        case name if name == SHELL:
            return f"May it run {asked.input.get('command')}?"
        case name if name == EDIT:
            return f"May it change {asked.input.get('file_path') or asked.input.get('notebook_path')}?"
        case name:
            return f"May it use {name}?"


def _for_session(asked: CanUseTool) -> list[dict[str, Any]]:
    """The engine's own suggestion, for this session only: it would write some of them into the workspace.

    A rule for the very thing asked about is taken alone; suggestions beside it would allow more. So would a rule for a whole
    tool, which is what it suggests for a tool of an MCP server: that person was asked about one call of it.
    """
    if asked.tool_name == LEAVE_PLAN:
        return [AUTO_EDIT]
    suggested = asked.permission_suggestions or []
    if not suggested and name_of(asked.tool_name) == SHELL:
        rule = {"toolName": asked.tool_name, "ruleContent": asked.input.get("command")}
        suggested = [{"type": "addRules", "rules": [rule], "behavior": "allow"}]
    rules = [each for each in suggested if each.get("type") == "addRules"]
    granted = [each for each in rules if _names_a_deed(each)] if rules else suggested
    return [each | {"destination": "session"} for each in granted]


def _names_a_deed(suggestion: Mapping[str, Any]) -> bool:
    return all(rule.get("ruleContent") for rule in objects_of(suggestion.get("rules")))


# ---- questions that a tool carries ----


def _questions(asked: CanUseTool) -> list[UserQuestion]:
    """A question's text is its key to the engine, too."""
    return [_question(each) for each in objects_of(asked.input.get("questions"))]


def _question(question: Mapping[str, Any]) -> UserQuestion:
    text, choices = str(question.get("question", "")), objects_of(question.get("options"))
    options = [Option(label=str(each.get("label", "")), description=each.get("description")) for each in choices]
    return UserQuestion(text, text, str(question.get("header") or ""), options, question.get("multiSelect") is True)


def _answers(questions: Sequence[UserQuestion], answer: Answer) -> dict[str, str]:
    """``{question: text}``."""
    given = zip(questions, answers_to(questions, answer), strict=True)
    return {each.text: ", ".join(texts) for each, texts in given if texts is not None}
