"""What every ACP engine is set up with alike: the endpoint, the key, MCP servers, tools that are switched off.

Each engine writes its own files from them; nothing here may know one by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executor.adapters.base import Command, StartRequest
from executor.adapters.mcp_servers import McpServer
from executor.adapters.mcp_servers import mcp_servers as servers_given
from shared.errors import ErrorCode, RunyardError

_REFUSAL = r"""
refuse() {{
  if [ -e "$1" ] || [ -L "$1" ]; then
    printf 'it is not started in a workspace that would configure it: take away %s\n' "$1" >&2
    exit 78
  fi
}}
for name in {names}; do refuse "$PWD/{folder}/$name"; done
if [ "${{PWD%/*}}" != "$HOME" ]; then refuse "${{PWD%/*}}/{folder}/.env"; fi
"""


@dataclass(frozen=True, slots=True)
class AcpSetup:
    """One process: its command, the MCP servers its session is opened with, what it signs in with over ACP, if it does there.

    ``new_session``: what ``session/new`` says beyond that.
    """

    command: Command
    mcp_servers: Sequence[Mapping[str, Any]] = ()
    sign_in: Mapping[str, Any] | None = None
    new_session: Mapping[str, Any] = field(default_factory=dict[str, Any])


def refusal(folder: str, names: Sequence[str]) -> str:
    """Shell lines that end a start, with the file's name, where the workspace's ``folder`` holds one of ``names``."""
    return _REFUSAL.format(folder=folder, names=" ".join(names))


def refuse_schema(request: StartRequest, engine: str) -> None:
    """Raises ``capability_unavailable`` when an answer in a schema's form is asked for: ACP has no word for it."""
    if request.output_schema is not None:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{engine} takes no output schema")


def key_in(request: StartRequest, names: Sequence[str]) -> str | None:
    """The first of these credentials that was given."""
    return next((request.credential_env[name] for name in names if request.credential_env.get(name)), None)


def tools_off(request: StartRequest, known: Mapping[str, Sequence[str]], engine: str) -> list[str]:
    """The engine's own names of what is switched off. Saying that a tool may be used changes nothing.

    Raises ``capability_unavailable`` for a tool that cannot be switched off.
    """
    refused = sorted(name for name, may in request.tools.items() if not may)
    unknown = next((name for name in refused if name not in known), None)
    if unknown is not None:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{engine} cannot do without its tool {unknown[:64]}")
    return [own for name in refused for own in known[name]]


def mcp_servers(request: StartRequest) -> list[dict[str, Any]]:
    """``providerOptions.mcpServers`` as ACP has them. Raises ``invalid_request``."""
    return [_mcp_server(each) for each in servers_given(request)]


def _mcp_server(server: McpServer) -> dict[str, Any]:
    if server.kind == "stdio":
        return {"name": server.name, "command": server.command, "args": server.args, "env": _pairs(server.env)}
    return {"type": server.kind, "name": server.name, "url": server.url, "headers": _pairs(server.headers)}


def _pairs(given: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in given.items()]
