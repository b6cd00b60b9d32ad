"""How events look on a terminal. The engine's answer goes to stdout, everything about it to stderr.

What an engine says is never trusted with the terminal: control characters do not get through.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from runyard.api import Event, Json
from runyard.cli.replies import expects

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CUT_AT = 160
_MARKS = {"completed": "✓", "failed": "✗", "declined": "⊘", "canceled": "⊘"}
_PLAN_MARKS = {"pending": "☐", "in_progress": "▸", "completed": "☑"}
STATUS_STYLES = {"success": "green", "error": "red", "timeout": "red", "canceled": "yellow", "waiting_user": "magenta"}

_Message = tuple[int, str]  # the attempt and the id: an engine's ids may begin anew in the next attempt


def clean(text: str) -> str:
    """Without control characters, except newline and tab."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def brief(value: Any, cut_at: int = _CUT_AT) -> str:
    """One line of it, at most ``cut_at`` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(clean(text).split())
    return line if len(line) <= cut_at else line[: cut_at - 1] + "…"


def asks(question: Mapping[str, Any]) -> str:
    """What it asks, in one line."""
    tool: Json = question.get("tool") or {}
    return brief(question.get("prompt") or f"{tool.get('name', '')} {brief(tool.get('input', {}))}")


class Show(Protocol):
    def event(self, event: Event) -> None: ...
    def note(self, text: str) -> None:
        """A word of ours to the person."""
        ...

    def remark(self, text: str) -> None:
        """One that need not be seen."""
        ...


class JsonLines:
    """One event a line on stdout, as it came, which is UTF-8 whatever the terminal speaks."""

    def event(self, event: Event) -> None:
        sys.stdout.buffer.write(f"{event.text}\n".encode())
        sys.stdout.flush()

    def note(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def remark(self, text: str) -> None:
        """Every line names its run already."""


class Live:
    """For a person who watches."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._attempt = 0
        self._streamed: set[_Message] = set()
        self._open: _Message | None = None  # its line is not finished
        self._has_spoken = False
        self._ways: dict[str, Callable[[Json], None]] = {
            "message.delta": self._delta, "message.completed": self._message, "reasoning.completed": self._reasoning,
            "tool.started": self._tool_started, "tool.completed": self._tool_completed, "plan.updated": self._plan,
            "interaction.requested": self._question, "interaction.resolved": self._resolved, "run.status": self._status,
            "diagnostic": self._diagnostic, "attempt.lost": self._lost, "retry.scheduled": self._retry, "stream.gap": self._gap,
        }  # fmt: skip

    def event(self, event: Event) -> None:
        self._attempt = event.attempt
        way = self._ways.get(event.kind)
        if way is not None:
            way(event.data)

    def note(self, text: str) -> None:
        self._aside(text, "bold")

    def remark(self, text: str) -> None:
        self._aside(text, "dim")

    def _delta(self, data: Json) -> None:
        """Of a sub-agent only whole messages are shown, because it speaks while others do."""
        if data.get("parentToolId"):
            return
        message = self._message_of(data)
        if self._open != message:
            self._end_line()
        self._open = message
        self._streamed.add(message)
        self._say(str(data.get("text", "")))

    def _message(self, data: Json) -> None:
        if data.get("parentToolId"):
            self._aside(f"{_indent(data)}{data.get('text', '')}", "dim")
        elif self._message_of(data) not in self._streamed:
            self._end_line()
            self._say(str(data.get("text", "")) + "\n")
        else:
            self._end_line()

    def _message_of(self, data: Json) -> _Message:
        return self._attempt, str(data.get("messageId"))

    def _reasoning(self, data: Json) -> None:
        self._aside(f"{_indent(data)}{data.get('text', '')}", "dim italic")

    def _tool_started(self, data: Json) -> None:
        given = "" if data.get("input") is None else f" {brief(data['input'])}"
        self._aside(f"{_indent(data)}▸ {brief(data.get('name', 'tool'))}{given}", "cyan")

    def _tool_completed(self, data: Json) -> None:
        status = str(data.get("status"))
        output = "" if data.get("output") is None else f" {brief(data['output'])}"
        said = f"{_indent(data)}{_MARKS.get(status, '·')} {brief(data.get('name', 'tool'))}{output}"
        self._aside(said, "red" if status == "failed" else "dim")

    def _plan(self, data: Json) -> None:
        for item in data.get("items", []):
            self._aside(f"  {_PLAN_MARKS.get(item.get('status'), '☐')} {brief(item.get('text', ''))}", "blue")

    def _question(self, data: Json) -> None:
        tool = data.get("tool")
        about = f"{tool.get('name')} {brief(tool.get('input', {}))}" if tool else ""
        self._aside(f"? {data.get('prompt') or about}", "bold magenta")
        if about and data.get("prompt"):
            self._aside(f"  {about}", "magenta")
        for number, option in enumerate(data.get("options") or [], 1):
            described = f": {brief(option['description'])}" if option.get("description") else ""
            self._aside(f"  {number}. {brief(option.get('label', ''))}{described}", "magenta")
        way = "--decision accept" if data.get("type") in ("permission", "plan") else "--answer …"
        self._aside(f"  {expects(data)}", "dim")
        self._aside(f"  or from elsewhere: runyard reply {self._run_id} {data.get('questionId')} {way}", "dim")

    def _resolved(self, data: Json) -> None:
        reply: Json = data.get("answer") or {}
        said = reply.get("answer") or reply.get("decision")
        self._aside(f"  {data.get('how', 'resolved')}" + (f": {brief(said)}" if said else ""), "magenta")

    def _diagnostic(self, data: Json) -> None:
        if data.get("severity") != "info":
            self._aside(f"  ! {brief(data.get('message', ''))}", "yellow")

    def _lost(self, data: Json) -> None:
        self._aside(f"  ! the executor was lost ({brief(data.get('reason', ''))})", "yellow")

    def _retry(self, data: Json) -> None:
        self._aside(f"  ! trying again: {brief(data.get('reason', ''))}", "yellow")

    def _gap(self, data: Json) -> None:
        self._aside(f"  ! events {data.get('from')} to {data.get('to')} are no longer kept", "yellow")

    def _status(self, data: Json) -> None:
        status = str(data.get("status"))
        if status not in ("success", "error", "timeout", "canceled"):
            return
        if status == "success" and not self._has_spoken and data.get("result") is not None:
            result = data["result"]
            self._say((result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)) + "\n")
        why = "".join(f" {part}" for part in (data.get("errorCode"), data.get("errorMessage")) if part)
        self._aside(f"{_MARKS['completed'] if status == 'success' else _MARKS['failed']} {status}{why}", STATUS_STYLES[status])
        if data.get("hint") and status != "success":
            self._aside(f"  {data['hint']}", "dim")

    def _say(self, text: str) -> None:
        self._has_spoken = True
        sys.stdout.write(clean(text))
        sys.stdout.flush()

    def _aside(self, text: str, style: str) -> None:
        self._end_line()
        self._console.print(Text(clean(text), style))

    def _end_line(self) -> None:
        if self._open is not None:
            self._open = None
            sys.stdout.write("\n")
            sys.stdout.flush()


def _indent(data: Json) -> str:
    """What a sub-agent says and does stands further in."""
    return "    │ " if data.get("parentToolId") else "  "
