"""How Claude Code is set up for one attempt: its files, its environment, its credentials, its tools.

Its folder is ``.claude`` under the attempt's HOME, so that a session's conversations stay beside it; they are found again only
from the same working directory. Nothing that lies in the workspace may configure the engine: settings there could send the
credentials elsewhere, run commands of their own, or widen the engine mode. Only ``CLAUDE.md`` is read from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from executor.adapters import options, skills
from executor.adapters.base import Command, File, StartRequest
from executor.adapters.engine_modes import MODES
from executor.adapters.mcp_servers import McpServer, mcp_servers
from executor.adapters.options import EVERYWHERE
from shared.contracts import credentials
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError, invalid

FOLDER = ".claude"
SETTINGS_FILE = f"{FOLDER}/settings.json"
# What is for every engine it does not look for by itself; the file need not be there.
INSTRUCTIONS_FILE = f"{FOLDER}/CLAUDE.md"
MCP_FILE = f"{FOLDER}/runyard-mcp.json"
COMMAND_ENV_FILE = f"{FOLDER}/runyard-command-env.sh"
LOGIN_FILE = f"{FOLDER}/.credentials.json"
CREDENTIALS = credentials.CREDENTIALS[Provider.CLAUDE_CODE]
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
ACCOUNT_TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"
BASE_URL = "ANTHROPIC_BASE_URL"
OPTIONS = EVERYWHERE | {"reasoningEffort"}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
RETRIES = 2
KEEP_SESSIONS_DAYS = 3650

STREAMS = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--include-partial-messages",
    "--permission-prompt-tool", "stdio", "--replay-user-messages",
)  # fmt: skip
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
    # an attempt is one turn: nothing is left working behind it, nothing wakes up later
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    # a prompt is on disk before the model is asked, so that a killed attempt can be gone on with
    "CLAUDE_CODE_EAGER_FLUSH": "1",
    "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
}
# Names that all engines share, and the engine's own tools behind them.
TOOLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "shell": ("Bash",),
        "edit": ("Edit", "Write", "NotebookEdit"),
        "web_search": ("WebSearch",),
        "web_fetch": ("WebFetch",),
    }
)
# It looks for skills nowhere in the workspace, so they get a name where it does.
_LAY_SKILLS = """
mkdir -p "$HOME/.claude/skills"
while [ "$1" != -- ]; do ln -sfn "$PWD/.agents/skills/$1" "$HOME/.claude/skills/$1"; shift; done
shift
exec "$@"
"""
_TOOL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_*.-]{0,127}")


def command_for(request: StartRequest, session: str | None) -> Command:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's or a tool's value."""
    base_url = base_url_of(request)
    places = {"CLAUDE_CONFIG_DIR": f"{request.home}/{FOLDER}", "CLAUDE_ENV_FILE": f"{request.home}/{COMMAND_ENV_FILE}"}
    env = _signed_in(request, base_url) | QUIET | places
    argv = [
        request.executable, *STREAMS, "--setting-sources", "user", "--add-dir", request.workspace,
        "--mcp-config", f"{request.home}/{MCP_FILE}", "--strict-mcp-config",
        "--permission-mode", MODES[request.engine_mode].claude,
        *_chosen(request), *_without(request.tools), *([] if session is None else ["--resume", session]),
    ]  # fmt: skip
    servers = {each.name: _mcp_server(each) for each in mcp_servers(request)}
    names = skills.skills_of(request)
    if names:
        argv = ["/bin/sh", "-c", _LAY_SKILLS, "claude-code", *names, "--", *argv]
    files = (
        File("home", INSTRUCTIONS_FILE, f"@{request.workspace}/AGENTS.md\n".encode()),
        File("home", SETTINGS_FILE, _settings(request, base_url).encode()),
        File("home", MCP_FILE, json.dumps({"mcpServers": servers}).encode()),
        File("home", COMMAND_ENV_FILE, _command_env().encode()),
    )
    return Command(argv=tuple(argv), env=env, files=files)


def base_url_of(request: StartRequest) -> str | None:
    """The endpoint to use instead of the vendor's, without the ``/v1`` that the engine adds itself."""
    given = options.base_url_of(request, BASE_URL)
    return given and given.rstrip("/").removesuffix("/v1")


def _signed_in(request: StartRequest, base_url: str | None) -> dict[str, str]:
    """An account's login serves the vendor's endpoint only: its tokens go to no other."""
    given = {name: value for name in CREDENTIALS.keys if (value := request.credential_env.get(name))}
    has_key = any(name in given for name in KEYS)
    if not has_key and (base_url is not None or not (given or request.credential_files.get(LOGIN_FILE))):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"claude-code needs {KEYS[0]}")
    return given | ({} if base_url is None else {BASE_URL: base_url})


def _settings(request: StartRequest, base_url: str | None) -> str:
    """The engine's environment stands here too where it must stand above what the credentials bring along."""
    env = {} if base_url is None else {BASE_URL: base_url, ACCOUNT_TOKEN: ""}
    return json.dumps({"disableAllHooks": True, "cleanupPeriodDays": KEEP_SESSIONS_DAYS, "env": env})


def _command_env() -> str:
    """Read before each shell command: what the engine may know, its commands may not."""
    return f"unset {' '.join(CREDENTIALS.keys)}\n"


def _chosen(request: StartRequest) -> list[str]:
    """The engine itself passes over an effort it does not know."""
    effort = request.provider_options.get("reasoningEffort")
    if effort is not None and effort not in EFFORTS:
        raise invalid("providerOptions.reasoningEffort", f"must be one of {', '.join(EFFORTS)}")
    if request.model is not None and request.model.startswith("-"):
        raise invalid("model", "must not begin with a dash")
    chosen = {"--model": request.model, "--effort": effort}
    return [part for name, value in chosen.items() if value for part in (name, value)]


def _without(tools: Mapping[str, bool]) -> list[str]:
    """Any tool can be switched off, by its shared name or the engine's own; saying that one may be used changes nothing."""
    off = [own for name, may in tools.items() if not may for own in TOOLS.get(name, (name,))]
    wrong = [name for name in off if not _TOOL_NAME.fullmatch(name)]
    if wrong:
        raise invalid("tools", f"{wrong[0][:64]!r} is no name of a tool")
    return ["--disallowedTools", ",".join(off)] if off else []


def _mcp_server(server: McpServer) -> dict[str, Any]:
    if server.kind == "stdio":
        return {"type": "stdio", "command": server.command, "args": server.args, "env": server.env}
    return {"type": server.kind, "url": server.url, "headers": server.headers}
