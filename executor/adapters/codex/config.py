"""How Codex is set up for one attempt: its folder, its files, its credentials, its tools.

CODEX_HOME is ``.codex`` under the attempt's HOME, so that a session's threads stay beside it and can be resumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from executor.adapters import skills
from executor.adapters.base import Command, File, StartRequest
from executor.adapters.engine_modes import MODES
from executor.adapters.mcp_servers import Kind, McpServer, mcp_servers
from executor.adapters.options import EVERYWHERE, base_url_of
from shared.contracts import credentials
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError, invalid

FOLDER = ".codex"
OWN_PROVIDER = "runyard"
BUILT_IN_PROVIDER = "openai"
KEY = "OPENAI_API_KEY"
BASE_URL = "OPENAI_BASE_URL"
LOGIN = "CODEX_AUTH_JSON"
LOGIN_FILE = f"{FOLDER}/auth.json"
CREDENTIALS = credentials.CREDENTIALS[Provider.CODEX_APP_SERVER]
RETRIES = 2
WEB_SEARCH = "web_search"
OPTIONS = EVERYWHERE | {"wireApi", "reasoningEffort", "reasoningSummary"}
WIRE = "responses"
MCP_KINDS: tuple[Kind, ...] = ("stdio", "http")
_MCP_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def command_for(request: StartRequest) -> Command:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's value, ``capability_unavailable``."""
    base_url = base_url_of(request, BASE_URL)
    login = request.credential_env.get(LOGIN) or request.credential_files.get(LOGIN_FILE)
    if request.provider_options.get("wireApi", WIRE) != WIRE:
        raise invalid("providerOptions.wireApi", f"codex speaks {WIRE} only")
    skills.skills_of(request)
    key = request.credential_env.get(KEY) or request.credential_env.get("CODEX_API_KEY") or _key_in(login)
    if key is None and (base_url is not None or login is None):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"codex needs {KEY}")
    files = [File("home", f"{FOLDER}/config.toml", _config(request, base_url).encode())]
    env = {"CODEX_HOME": f"{request.home}/{FOLDER}"}
    if base_url is not None:
        env[KEY] = str(key)
    else:
        auth = login or json.dumps({"auth_mode": "apikey", KEY: key})
        files.append(File("home", LOGIN_FILE, auth.encode()))
    return Command(argv=(request.executable, "app-server"), env=env, files=tuple(files))


def _key_in(login: str | None) -> str | None:
    """The API key of a login file; an account's login has none, and its tokens go to no endpoint but their own."""
    try:
        said = json.loads(login or "null")
    except (ValueError, RecursionError):
        return None
    key = said.get(KEY) if isinstance(said, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return key if isinstance(key, str) and key else None


def skill_items(request: StartRequest) -> list[dict[str, str]]:
    """The skills to put into the first turn, as codex's input items. Raises ``invalid_request``."""
    folder = f"{request.workspace}/{skills.FOLDER}"
    return [{"type": "skill", "name": name, "path": f"{folder}/{name}/SKILL.md"} for name in skills.skills_of(request)]


def thread_settings(request: StartRequest) -> dict[str, Any]:
    """What ``thread/start`` and ``thread/resume`` have in common."""
    freedom = MODES[request.engine_mode].codex
    settings: dict[str, Any] = {
        "cwd": request.workspace,
        "approvalPolicy": freedom.approval_policy,
        "sandbox": freedom.sandbox,
        "modelProvider": OWN_PROVIDER if base_url_of(request, BASE_URL) else BUILT_IN_PROVIDER,
    }
    return settings | ({"model": request.model} if request.model else {})


def _config(request: StartRequest, base_url: str | None) -> str:
    """Nothing that calls home or stays behind, retries that end, a plan, and questions to the user."""
    lines = [
        f"model_provider = {_text(OWN_PROVIDER if base_url else BUILT_IN_PROVIDER)}",
        "check_for_update_on_startup = false",
        'project_doc_fallback_filenames = ["CLAUDE.md"]',
        "suppress_unstable_features_warning = true",
        *_tools(request.tools),
        *_chosen(request.provider_options, "reasoningEffort", "model_reasoning_effort"),
        *_chosen(request.provider_options, "reasoningSummary", "model_reasoning_summary"),
        "",
        "[analytics]",
        "enabled = false",
        "",
        "[tools.update_plan]",
        "enabled = true",
        "",
        "[features]",
        "plugins = false",
        "apps = false",
        "daemon_auto_start = false",
        "unbounded_connection_retries = false",
        "default_mode_request_user_input = true",
        "",
        "[shell_environment_policy]",  # what the engine may know, its commands may not
        f"exclude = [{', '.join(_text(name) for name in CREDENTIALS.names)}]",
    ]
    if base_url:
        lines += [
            "",
            f"[model_providers.{OWN_PROVIDER}]",
            f"name = {_text(OWN_PROVIDER)}",
            f"base_url = {_text(base_url)}",
            f"env_key = {_text(KEY)}",
            'wire_api = "responses"',
            f"request_max_retries = {RETRIES}",
            f"stream_max_retries = {RETRIES}",
        ]
    lines += [line for server in mcp_servers(request) for line in _mcp_server(server)]
    return "\n".join(lines) + "\n"


def _mcp_server(server: McpServer) -> list[str]:
    """Its table. Raises ``invalid_request`` for a name codex does not take, ``capability_unavailable`` for a transport."""
    if not _MCP_NAME.fullmatch(server.name):
        raise invalid("providerOptions.mcpServers", "to codex a server's name is letters, digits, - and _")
    if server.kind not in MCP_KINDS:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"codex speaks to no tool server over {server.kind}")
    lines = ["", f"[mcp_servers.{server.name}]"]
    if server.kind == "http":
        return [*lines, f"url = {_text(server.url)}", f"http_headers = {_table(server.headers)}"]
    args = ", ".join(_text(each) for each in server.args)
    return [*lines, f"command = {_text(server.command)}", f"args = [{args}]", f"env = {_table(server.env)}"]


def _tools(tools: Mapping[str, bool]) -> list[str]:
    """Only the web search can be switched off; saying that any other tool may be used changes nothing."""
    refused = sorted(name for name, may in tools.items() if not may and name != WEB_SEARCH)
    if refused:
        raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"codex cannot do without its tool {refused[0][:64]}")
    return [f"{WEB_SEARCH} = {_text('live' if tools[WEB_SEARCH] else 'disabled')}"] if WEB_SEARCH in tools else []


def _chosen(options: Mapping[str, Any], name: str, setting: str) -> list[str]:
    value = options.get(name)
    if value is None:
        return []
    if not isinstance(value, str):
        raise invalid(f"providerOptions.{name}", "must be text")
    return [f"{setting} = {_text(value)}"]


def _table(values: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{_text(name)} = {_text(value)}" for name, value in values.items()) + " }"


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
