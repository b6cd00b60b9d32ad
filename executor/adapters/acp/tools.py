"""Tools of ACP engines as our tool events: names, inputs and outputs people can read, bounded.

A tool is told in pieces, by updates and by the permission asked for it; what is remembered of it is what they said last.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec

from executor.adapters.acp.protocol import PlanEntry, ToolCall, ToolContent
from executor.adapters.capping import MAX_TOOL_BYTES, capped
from shared.contracts.events import ToolCompleted, ToolStarted
from shared.contracts.interactions import AskedTool

Status = Literal["completed", "failed", "declined", "canceled"]
OVER = frozenset({"completed", "failed"})
MAX_DIFFED_LINES = 2_000  # before and after, in all files of one tool: comparing takes far more than its length
SHELL, EDIT = "execute", "edit"
_NAMES: Mapping[str, str] = {SHELL: "shell", EDIT: "edit"}
_ID_SEPARATOR = "__"


@dataclass(slots=True)
class Tool:
    """A tool that was begun: all that its lines said so far."""

    id: str
    own_name: str = ""
    kind: str = ""
    title: str = ""
    status: str = "pending"
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output: Any = None
    content: Sequence[ToolContent] = ()
    parent: str | None = None
    is_told: bool = False
    shown: dict[str, Any] | None = None  # the input as people see it, made once

    def learn(self, call: ToolCall) -> None:
        self.shown = None
        self.own_name = self.own_name or _own_name(call)
        self.parent = self.parent or parent_of(call)
        self.kind = call.kind or self.kind
        self.title = call.title or self.title
        self.status = call.status or self.status
        if isinstance(call.raw_input, dict) and call.raw_input:
            self.input = call.raw_input  # pyright: ignore[reportUnknownMemberType]
        self.output = call.raw_output if call.raw_output is not None else self.output
        self.content = call.content if call.content is not None else self.content

    @property
    def name(self) -> str:
        return _NAMES.get(self.kind) or self.own_name or self.kind or "tool"

    @property
    def diffs(self) -> list[ToolContent]:
        return [each for each in self.content if each.type == "diff"]


def _own_name(call: ToolCall) -> str:
    """Where it stands differs: beside the call, before its id's numbers, or as the title before anything better is known."""
    if call.meta is not None and call.meta.tool_name:
        return call.meta.tool_name
    if _ID_SEPARATOR in call.tool_call_id:
        return call.tool_call_id.partition(_ID_SEPARATOR)[0]
    return call.title or ""


def parent_of(call: ToolCall) -> str | None:
    """The tool call whose sub-agent makes this one."""
    return call.meta.parent_tool_call_id if call.meta is not None else None


def started(tool: Tool) -> ToolStarted:
    input, truncated = bounded(_input_of(tool))
    return ToolStarted(tool_id=tool.id, name=tool.name, input=input, truncated=truncated, parent_tool_id=tool.parent)


def asked(tool: Tool) -> AskedTool:
    input, _ = bounded(_input_of(tool))
    return AskedTool(name=tool.name, input=input if isinstance(input, dict) else {"json": input})  # pyright: ignore[reportUnknownArgumentType]


def completed(tool: Tool, was_ended: bool) -> ToolCompleted:
    """``was_ended``: someone asked for the end while it ran. Some engines call such a tool completed, some failed, and none
    tells an exit code one could believe."""
    output, exit_code = _output_of(tool)
    shown, truncated = bounded(output)
    ended: Status = "completed" if tool.status == "completed" else "failed"
    return ToolCompleted(
        tool_id=tool.id, name=tool.name, status="canceled" if was_ended else ended,
        output=shown, truncated=truncated, exit_code=None if was_ended else exit_code, parent_tool_id=tool.parent,
    )  # fmt: skip


def todos_of(tool: Tool) -> list[PlanEntry]:
    """The list a tool keeps for the model, where an engine tells its plan in no other way."""
    try:
        return msgspec.convert(tool.input.get("todos", []), type=list[PlanEntry])
    except msgspec.ValidationError:
        return []


def ended_as(tool: Tool, status: Status) -> ToolCompleted:
    return ToolCompleted(tool_id=tool.id, name=tool.name, status=status, parent_tool_id=tool.parent)


def _input_of(tool: Tool) -> dict[str, Any]:
    tool.shown = _made_input(tool) if tool.shown is None else tool.shown
    return tool.shown


def _made_input(tool: Tool) -> dict[str, Any]:
    if tool.kind == EDIT and tool.diffs:
        return {"changes": _changes(tool.diffs)}
    if tool.kind == SHELL and "command" not in tool.input:
        return {"command": tool.title}
    return dict(tool.input) or {"title": tool.title}


def _changes(diffs: Sequence[ToolContent]) -> list[dict[str, Any]]:
    """A new file by its content, a changed one by a unified diff; what is too long to compare by its new content."""
    changes: list[dict[str, Any]] = []
    compared = 0
    for each in diffs:
        if not each.old_text:
            changes.append({"path": each.path, "kind": "add", "diff": each.new_text})
            continue
        before, after = each.old_text.splitlines(keepends=True), each.new_text.splitlines(keepends=True)
        compared += len(before) + len(after)
        is_too_long = compared > MAX_DIFFED_LINES
        shown = {"content": each.new_text} if is_too_long else {"diff": "".join(difflib.unified_diff(before, after, n=3))}
        changes.append({"path": each.path, "kind": "update"} | shown)
    return changes


def _output_of(tool: Tool) -> tuple[Any, int | None]:
    texts = [each.content.text for each in tool.content if each.type == "content" and each.content is not None]
    said = "\n".join(text for text in texts if text) if tool.status in OVER else ""
    raw: Any = tool.output
    if not isinstance(raw, dict):
        return raw if raw is not None else said or None, None
    whole = cast("dict[str, Any]", raw)
    metadata: dict[str, Any] = whole.get("metadata") or {}
    exit_code = whole.get("exitCode", metadata.get("exit"))
    shown = whole.get("output") or whole.get("error") or ("" if "output" in whole else whole.get("text") or said)
    return shown, exit_code if isinstance(exit_code, int) else None


def bounded(value: Any) -> tuple[Any, bool | None]:
    """The value, or the beginning of its JSON where it is longer than the bound."""
    if value is None or value == "":
        return value, None
    if isinstance(value, str):
        return capped(value, MAX_TOOL_BYTES)
    text = msgspec.json.encode(value).decode()
    shown, truncated = capped(text, MAX_TOOL_BYTES)
    return (shown if truncated else value), truncated
