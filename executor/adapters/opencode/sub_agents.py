"""What a sub-agent of OpenCode said and did, read from its session when its task is over, and told as its own.

ACP tells nothing of it but the task's result. Shapes and words only; nothing here asks for a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct, field

from executor.adapters.capping import bounded
from executor.adapters.engine_json import Decoder
from executor.adapters.sub_agents import marked
from shared.contracts.events import MessageCompleted, Payload, ReasoningCompleted, ToolCompleted, ToolStarted

TASK_TOOL, QUESTION_TOOL = "task", "question"
_SESSION = re.compile(r'^<task id="(ses_\w+)"')
_NAMES = {"bash": "shell"}
_ENDS: dict[str, Literal["completed", "failed", "canceled"]] = {"completed": "completed", "error": "failed"}


class ToolState(Struct):
    status: str = ""
    input: Any = None
    output: Any = None
    error: Any = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


class Part(Struct):
    """A piece of a message: text, reasoning, a tool; what else there is we do not read."""

    id: str
    type: str
    text: str = ""
    tool: str = ""
    call_id: str = field(name="callID", default="")
    state: ToolState = field(default_factory=ToolState)


class Info(Struct):
    role: str = ""


class Message(Struct):
    info: Info
    parts: list[Part] = []


_messages = Decoder(list[Message])


def session_of(ended: ToolCompleted) -> str | None:
    """The session of the sub-agent whose task that was; None for any other tool, and for a task that came to nothing."""
    found = _SESSION.match(ended.output) if ended.name == TASK_TOOL and isinstance(ended.output, str) else None
    return found[1] if found is not None else None


def told_in(body: bytes, tool_id: str, seen: set[str]) -> list[Payload]:
    """A session's messages as events of the sub-agent that ``tool_id`` started; parts in ``seen`` were told, new ones are added.

    Raises ``msgspec.DecodeError``.
    """
    messages = _messages.decode(body)
    parts = [part for message in messages if message.info.role == "assistant" for part in message.parts if part.id not in seen]
    seen.update(part.id for part in parts)
    return [marked(payload, tool_id) for part in parts for payload in _told(part)]


def _told(part: Part) -> Iterator[Payload]:
    match part.type:
        case "text" if part.text.strip():
            yield MessageCompleted(message_id=part.id, text=part.text)
        case "reasoning" if part.text.strip():
            yield ReasoningCompleted(message_id=part.id, text=part.text)
        case "tool" if part.tool != QUESTION_TOOL:
            yield from _tool(part)
        case _:
            pass


def _tool(part: Part) -> Iterator[Payload]:
    name, exit_code = _NAMES.get(part.tool, part.tool), part.state.metadata.get("exit")
    input, input_cut = bounded(part.state.input)
    output, output_cut = bounded(part.state.output if part.state.error is None else part.state.error)
    yield ToolStarted(tool_id=part.call_id, name=name, input=input, truncated=input_cut)
    yield ToolCompleted(
        tool_id=part.call_id, name=name, status=_ENDS.get(part.state.status, "canceled"), output=output, truncated=output_cut,
        exit_code=exit_code if isinstance(exit_code, int) else None,
    )  # fmt: skip
