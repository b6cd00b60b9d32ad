"""What ``codex app-server`` says on the wire, typed: JSON-RPC without its version member, one object a line.

Only shapes stand here, read and written; what they mean is decided elsewhere. Fields we do not use are not declared, and unknown
fields are ignored, so that a newer engine can be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Raw, Struct

from executor.adapters.engine_json import Decoder

RpcId = int | str

NO_SUCH_METHOD = -32601
INVALID_REQUEST = -32600


class RpcError(Struct):
    code: int = 0
    message: str = ""


class Incoming(Struct):
    """Any line: a notification (method), a server's request (method and id), or the answer to a request of ours (id)."""

    id: RpcId | None = None
    method: str | None = None
    params: Raw = Raw(b"{}")
    result: Raw = Raw(b"null")
    error: RpcError | None = None


class Named(Struct, rename="camel"):
    """Base of everything the engine writes in camelCase."""


# ---- answers ----


class Thread(Named):
    id: str


class ThreadOpened(Named):
    thread: Thread


class TurnError(Named):
    message: str = ""
    codex_error_info: Any = None
    additional_details: str | None = None


class Turn(Named):
    id: str
    status: str = "inProgress"
    error: TurnError | None = None


class TurnAccepted(Named):
    turn: Turn


# ---- notifications ----


class ItemHead(Named):
    """What every item has; the rest is read by ``type`` (see ``ITEMS``)."""

    type: str
    id: str = ""


class ItemMoved(Named):
    item: Raw
    thread_id: str = ""


class Delta(Named):
    item_id: str
    delta: str
    thread_id: str = ""


class PartAdded(Named):
    item_id: str
    summary_index: int = 0
    thread_id: str = ""


class PlanStep(Named):
    step: str
    status: str = "pending"


class PlanMoved(Named):
    plan: list[PlanStep]
    thread_id: str = ""


class Tokens(Named):
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0


class TokenUsage(Named):
    """``total`` is the thread's since its first day, ``last`` the newest request's; only ``last`` may be added up."""

    total: Tokens
    last: Tokens


class UsageMoved(Named):
    token_usage: TokenUsage
    thread_id: str = ""
    turn_id: str = ""


class ErrorRaised(Named):
    error: TurnError
    will_retry: bool = False
    thread_id: str = ""


class TurnMoved(Named):
    turn: Turn
    thread_id: str = ""


class RequestResolved(Named):
    request_id: RpcId


class Notice(Named):
    """``warning`` has a message, ``configWarning`` and ``deprecationNotice`` a summary."""

    message: str = ""
    summary: str = ""
    details: str | None = None


class ModelRerouted(Named):
    from_model: str
    to_model: str


NOTIFICATIONS: Mapping[str, type[Named]] = MappingProxyType(
    {
        "item/started": ItemMoved,
        "item/completed": ItemMoved,
        "item/agentMessage/delta": Delta,
        "item/reasoning/summaryTextDelta": Delta,
        "item/reasoning/summaryPartAdded": PartAdded,
        "turn/plan/updated": PlanMoved,
        "turn/started": TurnMoved,
        "turn/completed": TurnMoved,
        "thread/tokenUsage/updated": UsageMoved,
        "error": ErrorRaised,
        "serverRequest/resolved": RequestResolved,
        "warning": Notice,
        "guardianWarning": Notice,
        "configWarning": Notice,
        "deprecationNotice": Notice,
        "model/rerouted": ModelRerouted,
    }
)

# Seen or named by the engine's own schema, and of no use to a run's reader: neither event nor raw line.
NOISE_PREFIXES = (
    "thread/",
    "account/",
    "remoteControl/",
    "skills/",
    "mcpServer/",
    "rawResponse",
    "project/",
    "app/",
    "fs/",
    "hook/",
)
NOISE = frozenset({
    "item/commandExecution/outputDelta", "item/commandExecution/terminalInteraction", "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated", "item/mcpToolCall/progress", "item/plan/delta", "item/reasoning/textDelta",
    "turn/diff/updated", "turn/moderationMetadata", "model/verification", "model/safetyBuffering/updated",
    "modelProvider/authRecoveryStarted", "modelProvider/authRecoveryCompleted", "process/outputDelta", "process/exited",
    "item/autoApprovalReview/started", "item/autoApprovalReview/completed",
})  # fmt: skip

# ---- items ----


class AgentMessage(Named):
    id: str
    text: str = ""


class Reasoning(Named):
    id: str
    summary: list[str] = []
    content: list[str] = []


class CommandRun(Named):
    id: str
    command: str = ""
    cwd: str | None = None
    status: str = "inProgress"
    aggregated_output: str | None = None
    exit_code: int | None = None


class ChangeKind(Struct):
    type: str = "update"
    move_path: str | None = None


class FileDiff(Named):
    path: str
    kind: ChangeKind = msgspec.field(default_factory=ChangeKind)
    diff: str = ""


class FileEdit(Named):
    id: str
    changes: list[FileDiff] = []
    status: str = "inProgress"


class McpCall(Named):
    id: str
    server: str = ""
    tool: str = ""
    status: str = "inProgress"
    arguments: Any = None
    result: Any = None
    error: Any = None


class OtherTool(Named):
    """An item of a tool we have no shape for: shown under its type, whole."""

    id: str
    type: str
    fields: dict[str, Any]

    @property
    def status(self) -> str:
        return str(self.fields.get("status", "completed"))


class Started(Named):
    """As much of an item as tells which call started a helper, and the helper's thread; two forms, by the engine's settings."""

    id: str
    tool: str = ""
    receiver_thread_ids: list[str] = []
    kind: str = ""
    agent_thread_id: str | None = None

    @property
    def threads(self) -> Sequence[str]:
        return self.receiver_thread_ids if self.agent_thread_id is None else (self.agent_thread_id,)


Tool = CommandRun | FileEdit | McpCall | OtherTool
Item = AgentMessage | Reasoning | Tool
ITEMS: Mapping[str, type[AgentMessage] | type[Reasoning] | type[CommandRun] | type[FileEdit] | type[McpCall]] = MappingProxyType(
    {
        "agentMessage": AgentMessage,
        "plan": AgentMessage,
        "reasoning": Reasoning,
        "commandExecution": CommandRun,
        "fileChange": FileEdit,
        "mcpToolCall": McpCall,
    }
)
SILENT_ITEMS = frozenset({"userMessage", "hookPrompt", "enteredReviewMode", "exitedReviewMode", "contextCompaction"})
STARTING_ITEMS = frozenset({"collabAgentToolCall", "subAgentActivity"})
_BOOKKEEPING = frozenset({"type", "id", "status", "startedAtMs", "completedAtMs", "durationMs"})

_REQUEST_HEAD = re.compile(rb'\{"method":("[\w/.-]{1,200}"),"id":(-?\d{1,18}|"[\w.:-]{0,200}"),')

_incoming = Decoder(Incoming)
_head = msgspec.json.Decoder(ItemHead)


def read_line(data: bytes) -> Incoming:
    """Raises ``msgspec.DecodeError`` for what is no JSON object of ours."""
    return _incoming.decode(data)


def request_in(head: bytes) -> tuple[RpcId, str] | None:
    """Id and method of a request of the engine's, by how its line begins; None for any other line."""
    found = _REQUEST_HEAD.match(head)
    return None if found is None else (msgspec.json.decode(found[2], type=RpcId), msgspec.json.decode(found[1], type=str))


def read_item(item: Raw) -> Item | None:
    """None for an item that is no news to a reader."""
    head = _head.decode(item)
    if head.type in SILENT_ITEMS:
        return None
    if head.type in ITEMS:
        return msgspec.json.decode(item, type=ITEMS[head.type])
    fields = msgspec.json.decode(item, type=dict[str, Any])
    shown = {name: value for name, value in fields.items() if name not in _BOOKKEEPING or name == "status"}
    return OtherTool(id=head.id, type=head.type, fields=shown)


def started_by(item: Raw) -> Started | None:
    """None for an item that starts no helper."""
    if _head.decode(item).type not in STARTING_ITEMS:
        return None
    started = msgspec.json.decode(item, type=Started)
    return started if started.tool == "spawnAgent" or started.kind == "started" else None


def is_noise(method: str) -> bool:
    return method in NOISE or method.startswith(NOISE_PREFIXES)


# ---- what we write ----


def request(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    return _line({"id": id, "method": method, "params": params})


def notification(method: str) -> bytes:
    return _line({"method": method})


def response(id: RpcId, result: Mapping[str, Any]) -> bytes:
    return _line({"id": id, "result": result})


def refusal(id: RpcId, method: str) -> bytes:
    return _line({"id": id, "error": {"code": NO_SUCH_METHOD, "message": f"{method} is not supported here"}})


def _line(message: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
