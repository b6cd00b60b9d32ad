"""Codex's tool items as our tool events: names, inputs and outputs people can read, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from executor.adapters.capping import MAX_TOOL_BYTES, bounded, capped
from executor.adapters.codex.protocol import CommandRun, FileDiff, FileEdit, McpCall, OtherTool, Tool
from shared.contracts.events import ToolCompleted, ToolStarted

Status = Literal["completed", "failed", "declined", "canceled"]


def started(tool: Tool) -> ToolStarted:
    input, truncated = _input_of(tool)
    return ToolStarted(tool_id=tool.id, name=name_of(tool), input=input, truncated=truncated)


def completed(tool: Tool, was_stopped: bool) -> ToolCompleted:
    """``was_stopped``: someone asked for the end, so a command that was killed was canceled and has not failed."""
    output, truncated = bounded(_output_of(tool))
    exit_code = tool.exit_code if isinstance(tool, CommandRun) else None
    status = "canceled" if was_stopped and exit_code == -1 else _status_of(tool.status)
    return ToolCompleted(
        tool_id=tool.id, name=name_of(tool), status=status, output=output, truncated=truncated, exit_code=exit_code
    )


def name_of(tool: Tool) -> str:
    match tool:
        case CommandRun():
            return "shell"
        case FileEdit():
            return "edit"
        case McpCall(server=server, tool=name):
            return f"{server}.{name}"
        case OtherTool(type=name):
            return name


def changes_of(changes: Sequence[FileDiff]) -> tuple[list[dict[str, Any]], bool | None]:
    """The files of an edit with their diffs, all diffs together within the bound."""
    left, shown, cut = MAX_TOOL_BYTES, list[dict[str, Any]](), None
    for change in changes:
        diff, truncated = capped(change.diff, max(left, 0))
        left -= len(diff.encode())
        cut = cut or truncated
        moved = {"movedTo": change.kind.move_path} if change.kind.move_path else {}
        shown.append({"path": change.path, "kind": change.kind.type, "diff": diff} | moved)
    return shown, cut


def _input_of(tool: Tool) -> tuple[Any, bool | None]:
    match tool:
        case CommandRun(command=command, cwd=cwd):
            shown, truncated = capped(command, MAX_TOOL_BYTES)
            return {"command": shown, "cwd": cwd}, truncated
        case FileEdit(changes=changes):
            shown, truncated = changes_of(changes)
            return {"changes": shown}, truncated
        case McpCall(arguments=arguments):
            return bounded(arguments)
        case OtherTool(fields=fields):
            return bounded({name: value for name, value in fields.items() if name != "status"})


def _output_of(tool: Tool) -> Any:
    match tool:
        case CommandRun(aggregated_output=output):
            return output
        case McpCall(result=result, error=error):
            return error if error is not None else result
        case FileEdit():
            return None
        case OtherTool(fields=fields):
            return {name: value for name, value in fields.items() if name != "status"}


def _status_of(status: str) -> Status:
    match status:
        case "failed":
            return "failed"
        case "declined":
            return "declined"
        case "inProgress":
            return "canceled"
        case _:
            return "completed"
