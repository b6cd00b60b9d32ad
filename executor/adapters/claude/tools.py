"""Claude Code's tool calls as our tool events, under the names all engines share, bounded; and its task list as a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from types import MappingProxyType
from typing import Any, Literal

from executor.adapters.capping import MAX_TOOL_BYTES, bounded, capped
from executor.adapters.claude.protocol import Block, fields_of, objects_of
from shared.contracts.events import PlanItem, ToolCompleted, ToolStarted

Status = Literal["completed", "failed", "declined", "canceled"]
PlanStatus = Literal["pending", "in_progress", "completed"]

MAX_COMPARED_LINES = 2_000  # of all edits of a call together: comparing takes the square of it, and every run waits for it
SHELL = "shell"
EDIT = "edit"
NAMES: Mapping[str, str] = MappingProxyType(
    {"Bash": SHELL, "Write": EDIT, "Edit": EDIT, "MultiEdit": EDIT, "NotebookEdit": EDIT, "WebSearch": "web_search"}
)
# Told otherwise: as questions, as the plan, or as the answer itself.
ASK_USER = "AskUserQuestion"
LEAVE_PLAN = "ExitPlanMode"
ANSWER = "StructuredOutput"
SILENT = frozenset({ASK_USER, LEAVE_PLAN, ANSWER, "TaskCreate", "TaskUpdate", "TaskList", "TaskGet", "TodoWrite"})

_MCP = re.compile(r"mcp__(.+?)__(.+)")
_EXIT_STATUS = re.compile(r"Exit code (\d+)")
_PLAN_STATUS: Mapping[str, PlanStatus] = MappingProxyType({"in_progress": "in_progress", "completed": "completed"})


def name_of(tool: str) -> str:
    """``server.tool`` for a tool of an MCP server."""
    served = _MCP.fullmatch(tool)
    return f"{served[1]}.{served[2]}" if served else NAMES.get(tool, tool)


def input_of(tool: str, given: Any) -> tuple[Any, bool | None]:
    """As people read it: an edit is the change of a file, everything else is what the engine gave."""
    if NAMES.get(tool) == EDIT and isinstance(given, dict):
        change, truncated = _change(fields_of(given))
        return {"changes": [change]}, truncated
    return bounded(given)


def started(tool_id: str, tool: str, given: Any) -> ToolStarted:
    shown, truncated = input_of(tool, given)
    return ToolStarted(tool_id=tool_id, name=name_of(tool), input=shown, truncated=truncated)


def completed(tool: str, result: Block, status: Status, kept: Any) -> ToolCompleted:
    """``kept``: what the engine itself keeps of the result."""
    output, truncated = bounded(text_of(result.content))
    return ToolCompleted(
        tool_id=result.tool_use_id,
        name=name_of(tool),
        status=status,
        output=output,
        truncated=truncated,
        exit_code=_exit_status(result, fields_of(kept))
        if NAMES.get(tool) == SHELL and status in ("completed", "failed")
        else None,
    )


def text_of(content: Any) -> Any:
    """A result's text where it is nothing but text."""
    parts = objects_of(content)
    if not parts or any(part.get("type") != "text" for part in parts):
        return content
    return "\n".join(str(part.get("text", "")) for part in parts)


def _exit_status(result: Block, kept: Mapping[str, Any]) -> int | None:
    """None where it is not told: of a search that found nothing the engine gives the meaning and not the number."""
    if not result.is_error:
        return None if "returnCodeInterpretation" in kept else 0
    said = _EXIT_STATUS.match(str(text_of(result.content)))
    return int(said[1]) if said else None


def _change(given: dict[str, Any]) -> tuple[dict[str, Any], bool | None]:
    path = str(given.get("file_path") or given.get("notebook_path") or "")
    if "content" in given:
        kind, diff = "add", str(given["content"])
    else:
        kind, diff = "update", _diff([_lines_of(each) for each in objects_of(given.get("edits")) or [given]])
    shown, truncated = capped(diff, MAX_TOOL_BYTES)
    return {"path": path, "kind": kind, "diff": shown}, truncated


def _lines_of(edit: dict[str, Any]) -> tuple[list[str], list[str]]:
    before, after = str(edit.get("old_string", "")), str(edit.get("new_string", edit.get("new_source", "")))
    return before.splitlines(), after.splitlines()


def _diff(edits: list[tuple[list[str], list[str]]]) -> str:
    """What each edit changes; of edits too long to be compared the new lines after the old ones, as one change."""
    are_compared = sum(len(before) + len(after) for before, after in edits) <= MAX_COMPARED_LINES
    changes = [_compared(*edit) if are_compared else _replaced(*edit) for edit in edits]
    return "".join(f"{line}\n" for lines in changes for line in lines)


def _compared(before: list[str], after: list[str]) -> list[str]:
    return list(unified_diff(before, after, lineterm=""))[2:]  # without the names of two files


def _replaced(before: list[str], after: list[str]) -> list[str]:
    return [*(f"-{line}" for line in before), *(f"+{line}" for line in after)]


@dataclass(slots=True)
class _Task:
    text: str
    status: PlanStatus = "pending"


class TaskList:
    """The engine's tasks, from its calls and what they gave. ``read`` tells whether the list changed."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    @property
    def items(self) -> list[PlanItem]:
        return [PlanItem(text=task.text, status=task.status) for task in self._tasks.values()]

    def read(self, tool: str, given: Any, result: Any) -> bool:
        """A call that succeeded: ``result`` is what the engine keeps of it."""
        before, call = self.items, fields_of(given)
        made = fields_of(fields_of(result).get("task"))
        if tool == "TodoWrite":
            self._tasks = {str(at): _task(todo) for at, todo in enumerate(objects_of(call.get("todos")))}
        elif tool == "TaskCreate" and made:
            self._tasks[str(made.get("id"))] = _Task(str(made.get("subject") or call.get("subject", "")))
        elif tool == "TaskUpdate":
            self._update(call)
        return self.items != before

    def _update(self, call: dict[str, Any]) -> None:
        id, status = str(call.get("taskId")), str(call.get("status", ""))
        task = self._tasks.get(id)
        if task is None:
            return
        if status == "deleted":
            del self._tasks[id]
            return
        task.text = str(call.get("subject") or task.text)
        if status:
            task.status = _PLAN_STATUS.get(status, "pending")


def _task(todo: Mapping[str, Any]) -> _Task:
    return _Task(str(todo.get("content", "")), _PLAN_STATUS.get(str(todo.get("status")), "pending"))
