"""What ``codex app-server`` asks its client, typed; shapes only. What may be asked of a person, and what answers the rest."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Raw, Struct

from executor.adapters.codex.protocol import Named


class AskCommand(Named):
    item_id: str = ""
    command: str | None = None
    cwd: str | None = None
    reason: str | None = None


class AskEdit(Named):
    item_id: str = ""
    reason: str | None = None
    grant_root: str | None = None


class Choice(Named):
    label: str
    description: str | None = None


class AskedQuestion(Named):
    id: str
    question: str
    header: str = ""
    options: list[Choice] | None = None


class AskUser(Named):
    questions: list[AskedQuestion]


class McpCallAsked(Struct):
    """What an elicitation says beside its form, where it is the engine itself that asks: may it call this tool?"""

    codex_approval_kind: str = ""
    tool_name: str = ""
    tool_params: Any = None


class AskMcp(Named):
    server_name: str = ""
    meta: McpCallAsked | None = msgspec.field(default=None, name="_meta")

    @property
    def is_permission(self) -> bool:
        return self.meta is not None and self.meta.codex_approval_kind == "mcp_tool_call"


Asked = AskCommand | AskEdit | AskUser | AskMcp
REQUESTS: Mapping[str, type[AskCommand] | type[AskEdit] | type[AskUser] | type[AskMcp]] = MappingProxyType(
    {
        "item/commandExecution/requestApproval": AskCommand,
        "item/fileChange/requestApproval": AskEdit,
        "item/tool/requestUserInput": AskUser,
        "mcpServer/elicitation/request": AskMcp,
    }
)

# Requests of kinds nobody can be asked about, and the answer that grants nothing.
REFUSALS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "item/permissions/requestApproval": {"permissions": {}, "scope": "turn"},
        "mcpServer/elicitation/request": {"action": "decline", "content": None, "_meta": None},
        "execCommandApproval": {"decision": {"denied": {"rejection": "not supported here"}}},
        "applyPatchApproval": {"decision": {"denied": {"rejection": "not supported here"}}},
    }
)


def read_request(method: str, params: Raw) -> Asked | None:
    """None for what nobody can be asked about: see ``REFUSALS``. Raises ``msgspec.DecodeError`` for what cannot be read."""
    if method not in REQUESTS:
        return None
    asked = msgspec.json.decode(params, type=REQUESTS[method])
    return None if isinstance(asked, AskMcp) and not asked.is_permission else asked
