"""What ``codex exec --json`` prints, as events: the one-shot form of Codex, which only the harness starts.

Its tools, messages and reasons mean what those of the app server mean; it has no deltas and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from executor.adapters.base import Emit, Outcome, Step
from executor.adapters.capping import bounded
from executor.adapters.codex.errors import code_of_text
from executor.adapters.engine_json import Decoder
from executor.adapters.framing import Line
from shared.contracts.events import (
    AttemptOutcome,
    Diagnostic,
    MessageCompleted,
    Payload,
    PlanItem,
    PlanUpdated,
    ReasoningCompleted,
    RetryScheduled,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
)
from shared.errors import ErrorCode

_NAMES = {"command_execution": "shell", "file_change": "edit", "mcp_tool_call": "mcp", "web_search": "web_search"}
_TOOL_STATUS = {"completed": "completed", "failed": "failed", "declined": "declined"}
_RETRY = re.compile(r"Reconnecting\.\.\. (\d{1,6})/\d+ \((.*)\)", re.DOTALL)
# Completed after the last message, too: a plan is told once more when its turn ends.
_AFTERTHOUGHTS = frozenset({"todo_list", "error"})
_Item = dict[str, Any]


class _Told(msgspec.Struct):
    type: str
    thread_id: str | None = None
    item: _Item | None = None
    message: str | None = None
    error: _Item | None = None


class ExecReader:
    """One process's stdout. The last whole message is the answer, which is known only when the turn has ended."""

    def __init__(self) -> None:
        self._decoder = Decoder(_Told)
        self._held: tuple[_Item, Line] | None = None
        self._has_completed = False
        self._answer: str | None = None
        self._failure: str | None = None

    def read(self, line: Line) -> list[Step] | None:
        told = self._decoder.decode(line.data)
        match told:
            case _Told(type="thread.started", thread_id=str(thread)):
                return [_at(line, SessionStarted(engine_session=thread))]
            case _Told(type="turn.started"):
                return self._release(final=False)
            case _Told(type="item.started" | "item.updated" | "item.completed", item=dict(item)):
                return self._on_item(told.type, item, line)
            case _Told(type="turn.completed"):
                self._has_completed = True
                return self._release(final=True)
            case _Told(type="turn.failed", error=dict(error)):
                self._failure = str(error.get("message", ""))
                return self._release(final=False)
            case _Told(type="error", message=str(message)) if (retry := _RETRY.match(message)) is not None:
                reason, code = retry[2], code_of_text(message)
                return [_at(line, RetryScheduled(by="engine", reason=reason[:2000], error_code=code, attempt=int(retry[1])))]
            case _Told(type="error", message=str(message)):
                self._failure = message
                return [_at(line, Diagnostic(code="engine_error", severity="warning", message=message[:2000]))]
            case _:
                return None

    def finished(self) -> list[Step]:
        return self._release(final=False)

    def ended(self, exit_code: int | None) -> Outcome | None:
        if self._has_completed and self._answer:
            return Outcome(AttemptOutcome.SUCCESS, result=self._answer)
        if self._has_completed:
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, "codex finished without an answer")
        if self._failure is not None:
            return Outcome(AttemptOutcome.ERROR, code_of_text(self._failure), self._failure[:2000])
        return None

    def _on_item(self, moment: str, item: _Item, line: Line) -> list[Step]:
        kind, is_over = str(item.get("type", "")), moment == "item.completed"
        before = [] if is_over and kind in _AFTERTHOUGHTS else self._release(final=False)
        match kind:
            case "agent_message":
                self._held = (item, line) if is_over else self._held
                return before
            case "reasoning":
                text = str(item.get("text", ""))
                return [*before, *([_at(line, ReasoningCompleted(message_id=_id(item), text=text))] if is_over else [])]
            case "todo_list":
                return [*before, _at(line, PlanUpdated(items=_todos(item)))]
            case "error":
                warning = Diagnostic(code="engine_warning", severity="warning", message=str(item.get("message", ""))[:2000])
                return [*before, _at(line, warning)]
            case _:
                return [*before, *_tool(kind, moment, item, line)]

    def _release(self, final: bool) -> list[Step]:
        if self._held is None:
            return []
        (item, line), self._held = self._held, None
        text = str(item.get("text", ""))
        self._answer = text or self._answer
        return [_at(line, MessageCompleted(message_id=_id(item), text=text, final=final))]


def _tool(kind: str, moment: str, item: _Item, line: Line) -> list[Step]:
    name = _NAMES.get(kind, kind)
    if moment == "item.started":
        shown = {key: item[key] for key in ("command", "changes", "arguments", "query") if key in item}
        input, truncated = bounded(shown)
        return [_at(line, ToolStarted(tool_id=_id(item), name=name, input=input, truncated=truncated))]
    if moment != "item.completed":
        return []
    output, truncated = bounded(item.get("aggregated_output", item.get("result", item.get("changes"))))
    status = _TOOL_STATUS.get(str(item.get("status")), "completed")
    exit_code = told if isinstance(told := item.get("exit_code"), int) else None
    ended: dict[str, Any] = {"tool_id": _id(item), "name": name, "status": status, "output": output, "truncated": truncated}
    return [_at(line, ToolCompleted.model_validate({**ended, "exit_code": exit_code}))]


def resume_arguments(session: str, message: str, more: Sequence[str]) -> tuple[str, ...]:
    return ("exec", "resume", "--json", *more, session, "--", message)


def _todos(item: _Item) -> list[PlanItem]:
    todos = msgspec.convert(item.get("items", []), list[_Item])
    return [
        PlanItem(text=str(each.get("text", "")), status="completed" if each.get("completed") else "pending") for each in todos
    ]


def _id(item: _Item) -> str:
    return str(item.get("id", "item"))


def _at(line: Line, payload: Payload) -> Emit:
    return Emit(payload, line.byte_from, line.byte_to)
