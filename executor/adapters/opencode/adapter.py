"""OpenCode: how it is started and resumed, what its HOME must contain, and what it says its own way.

Its process opens an HTTP server beside ACP, to everybody on the machine, so every process has a password of its own. Without a
provider of ours it would send prompts to its vendor's hosted models, so it never starts without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp import settings as acp_settings
from executor.adapters.acp.conversation import AcpConversation
from executor.adapters.acp.profile import AcpProfile, LogLine, UsageFrom
from executor.adapters.acp.protocol import RpcError
from executor.adapters.acp.settings import AcpSetup
from executor.adapters.base import Command, StartRequest
from executor.adapters.engine_modes import MODES, words
from executor.adapters.opencode.conversation import OpenCodeConversation
from executor.adapters.options import EVERYWHERE, base_url_of
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError, invalid

ENGINE = "opencode"
CONFIG_FILE = ".config/opencode/opencode.json"
LOGIN_FILE = ".local/share/opencode/auth.json"
LOGIN = "OPENCODE_AUTH_CONTENT"
OWN_PROVIDER = "runyard"
TOOLS = {"shell": ("bash",), "edit": ("edit",), "web_fetch": ("webfetch",), "web_search": ("websearch",)}
INSTRUCTIONS = ("AGENTS.md", "CLAUDE.md")
ALLOW, DENY = "allow", "deny"
LIMITS = {"context": 128_000, "output": 8_192}


class _Api:
    """A dialect OpenCode speaks with a library of its own: the library, the key's name, the endpoint's name."""

    def __init__(self, library: str, key: str, base_url: str, built_in: str) -> None:
        self.library, self.key, self.base_url, self.built_in = library, key, base_url, built_in


# By ``providerOptions.wireApi``; the first is the usual one.
APIS: Mapping[str, _Api] = MappingProxyType(
    {
        "chat": _Api("@ai-sdk/openai-compatible", "OPENAI_API_KEY", "OPENAI_BASE_URL", "openai"),
        "responses": _Api("@ai-sdk/openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", "openai"),
        "anthropic": _Api("@ai-sdk/anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic"),
    }
)
# Tools that only look, or keep a list. Its own default lets every tool run, those of MCP servers too.
HARMLESS = dict.fromkeys(("read", "glob", "grep", "list", "lsp", "question", "skill", "task", "todowrite", "todoread"), ALLOW)
_OWN_LOG = r"^timestamp=\S+ level=(?:DEBUG|INFO|WARN|ERROR) "


def error_code(error: RpcError) -> ErrorCode:
    """It tells no status: only the words and, for a conversation that is too long, the error's name."""
    name: Any = error.data.get("errorName") if isinstance(error.data, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return ErrorCode.CONTEXT_OVERFLOW if name == "ContextOverflowError" else acp_errors.code_of(error, None)


PROFILE = AcpProfile(
    engine=ENGINE,
    modes=words(lambda row: row.opencode.agent),
    options=EVERYWHERE | {"wireApi"},
    usage=UsageFrom.LAST_CALL,
    error_code=error_code,
    ends_turn_on_no=True,
    says_again=True,
    caches_apart=True,
    log=(
        (re.compile(_OWN_LOG + r"(?>.*? message=process )(?!.* error=).*session\.id="), LogLine.STEP),
        (re.compile(_OWN_LOG + r"(?>.*? message=stream ).*small=false"), LogLine.CALL),
        (
            re.compile(
                _OWN_LOG + r'(?>.*? message="stream error" )(?>.*?small=false)(?>.*? error\.error=")(?:\w+: )?(.*?)(?:"|$)'
            ),
            LogLine.FAILED,
        ),
        (re.compile(_OWN_LOG), LogLine.NOISE),
    ),
)


class OpenCodeAdapter:
    provider = Provider.OPENCODE
    capabilities = Capabilities(
        deltas=True, reasoning=True, tools=True, permissions=True, questions=True, plan=True, messages=True, interrupt=True,
        resume=True, usage=True, engine_modes=tuple(EngineMode),
    )  # fmt: skip
    install = INSTALLS[Provider.OPENCODE]
    credentials = CREDENTIALS[Provider.OPENCODE]

    def start(self, request: StartRequest) -> OpenCodeConversation:
        return OpenCodeConversation(AcpConversation(PROFILE, _setup(request), request, None), request)

    def resume(self, request: StartRequest, session: str) -> OpenCodeConversation:
        return OpenCodeConversation(AcpConversation(PROFILE, _setup(request), request, session), request)


def _setup(request: StartRequest) -> AcpSetup:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's value, ``capability_unavailable``."""
    acp_settings.refuse_schema(request, ENGINE)
    api = _api_of(request)
    key = request.credential_env.get(api.key)
    base_url = base_url_of(request, api.base_url)
    has_login = LOGIN in request.credential_env or bool({LOGIN_FILE, CONFIG_FILE} & request.credential_files.keys())
    if key is None and (base_url is not None or not has_login):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"{ENGINE} needs {api.key}")
    env = {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        # a workspace's own would start programs, plugins and servers of its own with the key in their environment
        "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
        "npm_config_registry": "http://127.0.0.1:9/",  # it would install a plugin of its own at each start
        "NO_COLOR": "1",
        "OPENCODE_SERVER_PASSWORD": request.door_key,
        "OPENCODE_ENABLE_QUESTION_TOOL": "1",
        "OPENCODE_CONFIG_CONTENT": json.dumps(_config(request, api, base_url)),
    }
    env |= {api.key: key} if key is not None else {}
    argv = (request.executable, "acp", "--print-logs", "--log-level", "INFO")
    return AcpSetup(Command(argv=argv, env=env), acp_settings.mcp_servers(request))


def _api_of(request: StartRequest) -> _Api:
    """The dialect asked for; without a word, the one whose key is there."""
    wire_api = request.provider_options.get("wireApi")
    if wire_api is None:
        return next((api for api in APIS.values() if request.credential_env.get(api.key)), APIS["chat"])
    if wire_api not in APIS:
        raise invalid("providerOptions.wireApi", f"must be one of {', '.join(APIS)}")
    return APIS[wire_api]


def _permission(mode: EngineMode) -> dict[str, str]:
    """What is asked about and what is not offered; the last that fits a tool counts."""
    told = MODES[mode].opencode
    if told.others == ALLOW:
        return {"*": ALLOW}
    return {"*": told.others, **HARMLESS} | ({} if told.edit is None else {"edit": told.edit})


def _config(request: StartRequest, api: _Api, base_url: str | None) -> dict[str, Any]:
    """Stands above every file. One provider and no other, nothing shared, nothing fetched, and every permission told."""
    permission = _permission(request.engine_mode) | dict.fromkeys(acp_settings.tools_off(request, TOOLS, ENGINE), DENY)
    config: dict[str, Any] = {
        "autoupdate": False,
        "share": "disabled",
        "permission": permission,
        # with the workspace's settings it leaves these out too; they are text for the model
        "instructions": [f"{request.workspace}/{name}" for name in INSTRUCTIONS],
    }
    if CONFIG_FILE in request.credential_files and base_url is None:
        return config | ({"model": request.model} if request.model else {})
    provider, _, name = (request.model or "").rpartition("/")
    if base_url is None:
        provider = provider or api.built_in
        options: dict[str, Any] = {"apiKey": f"{{env:{api.key}}}"} if request.credential_env.get(api.key) else {}
        block: dict[str, Any] = {"options": options}
    else:
        provider, name = OWN_PROVIDER, request.model or "default"
        options = {"baseURL": base_url, "apiKey": f"{{env:{api.key}}}"}
        models = {name: {"tool_call": True, "reasoning": True, "limit": LIMITS}}
        block = {"npm": api.library, "options": options, "models": models}
    model = {"model": f"{provider}/{name}", "small_model": f"{provider}/{name}"} if name else {}
    return config | {"enabled_providers": [provider], "provider": {provider: block}} | model
