"""``providerOptions.mcpServers``: the tool servers a caller gives an engine, read once for all; each engine writes its own form.

Given by name, as most engines have them: ``{command, args, env}`` for a program, ``{url, headers, type: http|sse}`` for a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from executor.adapters.base import StartRequest
from shared.errors import invalid

OPTION = "mcpServers"
MAX_SERVERS = 32
Kind = Literal["stdio", "http", "sse"]
KINDS: tuple[Kind, ...] = ("stdio", "http", "sse")
_KNOWN = frozenset({"type", "command", "args", "env", "url", "headers"})


@dataclass(frozen=True, slots=True)
class McpServer:
    """``stdio``: ``command``, ``args`` and ``env``; else ``url`` and ``headers``. The name is the caller's."""

    name: str
    kind: Kind
    command: str = ""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def mcp_servers(request: StartRequest) -> list[McpServer]:
    """Raises ``invalid_request``, also for a field that nobody knows."""
    given: Any = request.provider_options.get(OPTION)
    if given is None:
        return []
    if not isinstance(given, dict) or len(cast("dict[str, Any]", given)) > MAX_SERVERS:
        raise invalid(f"providerOptions.{OPTION}", f"must be an object of at most {MAX_SERVERS} servers by name")
    return [_server(name, server) for name, server in cast("dict[str, Any]", given).items()]


def _server(name: str, given: Any) -> McpServer:
    where = f"providerOptions.{OPTION}.{name[:64]}"
    if not isinstance(given, dict):
        raise invalid(where, "must be an object")
    told = cast("dict[str, Any]", given)
    unknown = sorted(set(told) - _KNOWN)
    if unknown:
        raise invalid(where, f"{unknown[0][:64]!r} is not known; known: {', '.join(sorted(_KNOWN))}")
    command, url, args = told.get("command"), told.get("url"), told.get("args", [])
    if isinstance(command, str) and isinstance(args, list):
        return McpServer(name, "stdio", command, [str(each) for each in cast("list[Any]", args)], _texts(where, told.get("env")))
    kind = told.get("type", "http")
    if isinstance(url, str) and (kind == "http" or kind == "sse"):
        return McpServer(name, kind, url=url, headers=_texts(where, told.get("headers")))
    raise invalid(where, "needs a command with args, or a url with type http or sse")


def _texts(where: str, given: Any) -> dict[str, str]:
    if not isinstance(given, dict | None):
        raise invalid(where, "env and headers are objects of texts")
    return {name: str(value) for name, value in cast("dict[str, Any]", given or {}).items()}
