"""What every ACP engine is set up with alike: the endpoint, the key, MCP servers, tools that are switched off.

Each engine writes its own files from them; nothing here may know one by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from executor.adapters.base import Command, StartRequest
from shared.errors import ErrorCode, RunyardError, invalid

MAX_MCP_SERVERS = 32


@dataclass(frozen=True, slots=True)
class AcpSetup:
    """One process: its command, the MCP servers its session is opened with, what it signs in with over ACP, if it does there.

    ``new_session``: what ``session/new`` says beyond that.
    """

    command: Command
    mcp_servers: Sequence[Mapping[str, Any]] = ()
    sign_in: Mapping[str, Any] | None = None
    new_session: Mapping[str, Any] = field(default_factory=dict[str, Any])


def refuse_schema(request: StartRequest, engine: str) -> None:
    """Raises ``capability_unavailable`` when an answer in a schema's form is asked for: ACP has no word for it."""
    if request.output_schema is not None:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{engine} takes no output schema")


def key_in(request: StartRequest, names: Sequence[str]) -> str | None:
    """The first of these credentials that was given."""
    return next((request.credential_env[name] for name in names if request.credential_env.get(name)), None)


def base_url_of(request: StartRequest, name: str) -> str | None:
    """The endpoint to use instead of the built-in one: the request's, else the variable ``name``."""
    given = request.provider_options.get("baseUrl") or request.credential_env.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or not given.startswith(("http://", "https://")):
        raise invalid("providerOptions.baseUrl", "must be an http or https URL")
    return given


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
    """``providerOptions.mcpServers`` as ACP has them. Raises ``invalid_request``.

    Given by name: ``{command, args, env}`` for a program, ``{url, headers, type: http|sse}`` for a server.
    """
    given = request.provider_options.get("mcpServers")
    if given is None:
        return []
    if not isinstance(given, dict) or len(given) > MAX_MCP_SERVERS:  # pyright: ignore[reportUnknownArgumentType]
        raise invalid("providerOptions.mcpServers", f"must be an object of at most {MAX_MCP_SERVERS} servers by name")
    return [_mcp_server(str(name), server) for name, server in given.items()]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _mcp_server(name: str, server: Any) -> dict[str, Any]:
    where = f"providerOptions.mcpServers.{name[:64]}"
    if not isinstance(server, dict):
        raise invalid(where, "must be an object")
    told = cast("dict[str, Any]", server)
    command, url, args = told.get("command"), told.get("url"), told.get("args", [])
    if isinstance(command, str) and isinstance(args, list):
        return {"name": name, "command": command, "args": [str(each) for each in args], "env": _pairs(where, told.get("env"))}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    kind = told.get("type", "http")
    if isinstance(url, str) and kind in {"http", "sse"}:
        return {"type": kind, "name": name, "url": url, "headers": _pairs(where, told.get("headers"))}
    raise invalid(where, "needs a command with args, or a url with type http or sse")


def _pairs(where: str, given: Any) -> list[dict[str, str]]:
    if not isinstance(given, dict | None):
        raise invalid(where, "env and headers are objects of texts")
    return [{"name": str(name), "value": str(value)} for name, value in (given or {}).items()]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
