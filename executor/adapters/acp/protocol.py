"""The Agent Client Protocol, version 1, as it is on the wire: JSON-RPC 2.0, one object a line, requests both ways.

Only shapes stand here, read and written; what they mean is decided elsewhere. Fields we do not use are not declared, and unknown
fields are ignored, so that a newer engine can be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from executor.adapters.engine_json import Decoder

RpcId = int | str

VERSION = 1
NO_SUCH_METHOD = -32601
AUTH_REQUIRED = -32000
NOT_FOUND = -32002


class Named(Struct, rename="camel"):
    """Base of everything written in camelCase."""


class RpcError(Struct):
    """``code`` is JSON-RPC's, or the HTTP status of the model's refusal; ``data`` is the engine's own."""

    code: int = 0
    message: str = ""
    data: Any = None


class Incoming(Struct):
    """Any line: a notification (method), a request of the engine (method and id), or the answer to one of ours (id)."""

    id: RpcId | None = None
    method: str | None = None
    params: Raw = Raw(b"{}")
    result: Raw = Raw(b"null")
    error: RpcError | None = None


# ---- what a tool did ----


class Text(Struct):
    """A block of content; anything but text has none."""

    type: str = ""
    text: str = ""


class ToolContent(Named):
    """``content``: a block; ``diff``: a file before and after; ``terminal``: neither."""

    type: str = ""
    content: Text | None = None
    path: str = ""
    old_text: str | None = None
    new_text: str = ""


class ToolMeta(Named):
    """``parent_tool_call_id``: a sub-agent's, which that tool call started."""

    tool_name: str | None = None
    parent_tool_call_id: str | None = None
    qwen_interaction_kind: str | None = None


class ToolCall(Named):
    """A tool, as far as this line tells of it: what a line leaves out stays as it was. ``_meta`` is one engine's addition."""

    tool_call_id: str
    title: str | None = None
    kind: str | None = None
    status: str | None = None
    content: list[ToolContent] | None = None
    raw_input: Any = None
    raw_output: Any = None
    meta: ToolMeta | None = field(default=None, name="_meta")


# ---- session/update ----


class Tokens(Named):
    """As ``usage`` names them; ``input_tokens`` with or without the cached ones, as the engine counts."""

    input_tokens: int = 0
    output_tokens: int = 0
    thought_tokens: int | None = None
    cached_read_tokens: int | None = None


class ChunkMeta(Named):
    usage: Tokens | None = None
    parent_tool_call_id: str | None = None


class Chunk(Named):
    content: Text
    message_id: str = ""
    meta: ChunkMeta | None = field(default=None, name="_meta")

    @property
    def parent(self) -> str | None:
        """The tool call whose sub-agent says this."""
        return self.meta.parent_tool_call_id if self.meta is not None else None


class PlanEntry(Struct):
    content: str
    status: str = "pending"


class Plan(Struct):
    entries: list[PlanEntry]


Update = Chunk | ToolCall | Plan


class UpdateHead(Named):
    session_update: str = ""


class SessionUpdate(Named):
    update: Raw
    session_id: str = ""


UPDATES: Mapping[str, type[Update]] = MappingProxyType(
    {
        "agent_message_chunk": Chunk,
        "agent_thought_chunk": Chunk,
        "tool_call": ToolCall,
        "tool_call_update": ToolCall,
        "plan": Plan,
    }
)
# Told for an editor's screen; nothing in them belongs to a run.
NOISE = frozenset({
    "available_commands_update", "current_mode_update", "config_option_update", "session_info_update", "usage_update",
    "user_message_chunk",
})  # fmt: skip


# ---- requests of the engine, answers to ours ----


class PermissionOption(Named):
    option_id: str
    name: str = ""
    kind: str = ""


class AskPermission(Named):
    tool_call: ToolCall
    options: list[PermissionOption] = []


class SessionOpened(Named):
    session_id: str = ""


class Counted(Struct):
    """Tokens of a whole prompt, as one engine writes them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Quota(Struct):
    token_count: Counted = field(default_factory=Counted)
    model_usage: list[Any] = []


class PromptMeta(Struct):
    quota: Quota | None = None


class PromptEnded(Named):
    stop_reason: str = ""
    usage: Tokens | None = None
    meta: PromptMeta | None = field(default=None, name="_meta")


_HEAD = re.compile(
    rb'\{"jsonrpc":"2\.0","id":(?:(?P<number>\d{1,15})|"(?P<name>[\x20!\x23-\x5b\x5d-\x7e]{1,128})")'
    rb',"(?:method":"(?P<method>[\w/]{1,64})"|result"|error")'
)
_incoming = Decoder(Incoming)


def read_line(data: bytes) -> Incoming:
    """Raises ``msgspec.DecodeError`` for what is not such an object."""
    return _incoming.decode(data)


def read_head(head: bytes) -> Incoming | None:
    """A request's id and method, or an answer's id, of a line whose beginning is all that can be read of it."""
    found = _HEAD.match(head)
    if found is None:
        return None
    rpc_id = int(found["number"]) if found["number"] is not None else found["name"].decode()
    return Incoming(id=rpc_id, method=found["method"].decode() if found["method"] is not None else None)


def read_update(update: Raw) -> tuple[str, Update | None]:
    """Which kind of update, and the update itself when we read that kind. Raises ``msgspec.DecodeError``."""
    kind = msgspec.json.decode(update, type=UpdateHead).session_update
    return kind, msgspec.json.decode(update, type=UPDATES[kind]) if kind in UPDATES else None


def request(id: RpcId, method: str, params: Mapping[str, Any]) -> bytes:
    return _line({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    return _line({"jsonrpc": "2.0", "method": method, "params": params})


def response(id: RpcId, result: Mapping[str, Any]) -> bytes:
    return _line({"jsonrpc": "2.0", "id": id, "result": result})


def refusal(id: RpcId, method: str) -> bytes:
    error = {"code": NO_SUCH_METHOD, "message": f"this client does not serve {method}"}
    return _line({"jsonrpc": "2.0", "id": id, "error": error})


def prompt_of(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _line(message: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
