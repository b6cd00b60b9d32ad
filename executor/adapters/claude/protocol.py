"""What ``claude -p`` says on the wire in its stream-json form, typed: one JSON object a line, both ways.

Only shapes stand here, read and written; what they mean is decided elsewhere. Fields we do not use are not declared, and unknown
fields are ignored, so that a newer engine can be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from executor.adapters.engine_json import Decoder


class Head(Struct):
    """What every line has; the rest is read by ``type`` and ``subtype`` (see ``LINES``)."""

    type: str
    subtype: str = ""


class Told(Struct):
    """Base of every line we read."""


class Tokens(Struct):
    """Of one request to the model; what was read from its cache is not in ``input_tokens``."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class Block(Struct):
    """A piece of a message: text, thinking, tool_use or tool_result."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class Message(Struct):
    id: str = ""
    content: str | list[Block] = []
    usage: Tokens | None = None

    @property
    def blocks(self) -> Sequence[Block]:
        return self.content if isinstance(self.content, list) else ()


class Delta(Struct):
    """Of a text or thinking block; other deltas carry neither."""

    text: str = ""
    thinking: str = ""


class ModelEvent(Struct):
    type: str
    index: int = 0
    message: Message | None = None
    delta: Delta | None = None
    usage: Tokens | None = None


class Streamed(Told):
    """One server-sent event of the model's answer; ``parent_tool_use_id``: it is a helper's, called by that tool."""

    event: ModelEvent
    parent_tool_use_id: str | None = None


class Assistant(Told):
    """One whole block of an answer. ``error``: not the model's words but why there are none."""

    message: Message
    parent_tool_use_id: str | None = None
    error: str | None = None


class User(Told, rename="camel"):
    """Tool results; or a message of ours, taken (``is_replay``, under our uuid)."""

    message: Message
    uuid: str = ""
    is_replay: bool = False
    tool_use_result: Any = msgspec.field(default=None, name="tool_use_result")


class Init(Told):
    session_id: str


class ApiRetry(Told):
    attempt: int = 0
    retry_delay_ms: float = 0
    error_status: int | None = None
    error: str | None = None


class TaskStarted(Told):
    """A helper (or a long command) began: its id, and the tool call that it is."""

    task_id: str = ""
    tool_use_id: str | None = None


class CompactBoundary(Told):
    """The engine summed up the conversation so far, to make room."""


class RateLimitInfo(Struct, rename="camel"):
    status: str = "allowed"
    rate_limit_type: str | None = None


class RateLimited(Told):
    rate_limit_info: RateLimitInfo = msgspec.field(default_factory=RateLimitInfo)


class ModelUsage(Struct, rename="camel"):
    """Tokens of one model since the process began, helpers included."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class Result(Told):
    """The end of a turn. An error of the model's endpoint has ``subtype`` success and ``is_error``."""

    subtype: str = ""
    is_error: bool = False
    result: str | None = None
    errors: list[str] = []
    api_error_status: int | None = None
    terminal_reason: str | None = None
    structured_output: Any = None
    total_cost_usd: float | None = None
    model_usage: dict[str, ModelUsage] = msgspec.field(default_factory=dict[str, ModelUsage], name="modelUsage")


class CanUseTool(Struct):
    tool_name: str
    input: dict[str, Any]
    tool_use_id: str = ""
    agent_id: str | None = None  # the helper that asks
    permission_suggestions: list[dict[str, Any]] | None = None


class ControlRequest(Told):
    request_id: str
    request: Raw


class ControlAnswer(Struct):
    request_id: str = ""
    subtype: str = ""
    error: str = ""


class ControlResponse(Told):
    response: ControlAnswer


class ControlCancel(Told):
    request_id: str


class ControlHead(Struct):
    subtype: str


LINES: Mapping[tuple[str, str], type[Told]] = MappingProxyType(
    {
        ("system", "init"): Init,
        ("system", "api_retry"): ApiRetry,
        ("system", "task_started"): TaskStarted,
        ("system", "compact_boundary"): CompactBoundary,
        ("stream_event", ""): Streamed,
        ("assistant", ""): Assistant,
        ("user", ""): User,
        ("rate_limit_event", ""): RateLimited,
        ("control_request", ""): ControlRequest,
        ("control_response", ""): ControlResponse,
        ("control_cancel_request", ""): ControlCancel,
    }
)

# Seen or named by the engine itself, and of no use to a run's reader: neither event nor raw line.
NOISE = frozenset({"keep_alive", "tool_progress", "tool_use_summary", "auth_status", "prompt_suggestion"})
SYSTEM_NOISE = frozenset({
    "status", "thinking_tokens", "task_progress", "task_updated", "task_notification", "session_state_changed",
    "hook_started", "hook_progress", "hook_response", "files_persisted", "post_turn_summary",
})  # fmt: skip

# How lines begin that must not be lost with their length.
RESULT_HEAD = b'{"type":"result"'
_REQUEST_HEAD = re.compile(rb'\{"type":"control_request","request_id":"([^"\\]{1,128})"')

_head = Decoder(Head)
_result = Decoder(Result)
_decoders = {name: Decoder(shape) for name, shape in LINES.items()}


def read_head(data: bytes) -> Head:
    """Raises ``msgspec.DecodeError`` for what is no JSON object of the engine's."""
    return _head.decode(data)


def read_line(head: Head, data: bytes) -> Told | None:
    """None for a line of a kind we do not know. Raises ``msgspec.DecodeError`` for one we should."""
    if head.type == "result":
        return _result.decode(data)
    decoder = _decoders.get((head.type, head.subtype if head.type == "system" else ""))
    return None if decoder is None else decoder.decode(data)


def read_question(request: Raw) -> CanUseTool | str:
    """The subtype of a request that is no question about a tool."""
    subtype = msgspec.json.decode(request, type=ControlHead).subtype
    return msgspec.json.decode(request, type=CanUseTool) if subtype == "can_use_tool" else subtype


def request_id_in(head: bytes) -> str | None:
    """Of a request whose beginning is all that is known of it."""
    found = _REQUEST_HEAD.match(head)
    return found[1].decode() if found else None


def is_noise(head: Head) -> bool:
    return head.type in NOISE or (head.type == "system" and head.subtype in SYSTEM_NOISE)


def fields_of(value: Any) -> dict[str, Any]:
    """Of what a model wrote: none for what is no object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list a model wrote."""
    parts = cast("list[Any]", value) if isinstance(value, list) else []
    return [fields_of(part) for part in parts if isinstance(part, dict)]


# ---- what we write ----


def request(id: str, subtype: str, **fields: Any) -> bytes:
    return _line({"type": "control_request", "request_id": id, "request": {"subtype": subtype} | fields})


def response(id: str, answer: Mapping[str, Any]) -> bytes:
    return _line({"type": "control_response", "response": {"subtype": "success", "request_id": id, "response": answer}})


def refusal(id: str, why: str) -> bytes:
    return _line({"type": "control_response", "response": {"subtype": "error", "request_id": id, "error": why}})


def user_message(text: str, uuid: str) -> bytes:
    return _line({"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": text}]}, "uuid": uuid})


def _line(message: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
