"""Qwen Code over ACP: how it is started and resumed, what its HOME must contain, and what it says its own way."""

from __future__ import annotations

import json
import re
from typing import Any

from executor.adapters import acp_errors, acp_settings
from executor.adapters.acp import AcpConversation
from executor.adapters.acp_profile import AcpProfile, UsageFrom
from executor.adapters.acp_protocol import RpcError
from executor.adapters.acp_settings import AcpSetup
from executor.adapters.base import Command, File, Install, StartRequest
from executor.adapters.engine_modes import words
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

ENGINE = "qwen-code"
KEY, OTHER_KEY = "OPENAI_API_KEY", "DASHSCOPE_API_KEY"
BASE_URL = "OPENAI_BASE_URL"
OTHER_KEYS_URL = "https://dashscope.aliyuncs.com/compatible-mode/v1"
FOLDER = ".qwen"
LOGIN_FILE = f"{FOLDER}/oauth_creds.json"
TOOLS = {"shell": ("run_shell_command",), "edit": ("write_file", "edit", "notebook_edit"), "web_fetch": ("web_fetch",)}

_STATUS = re.compile(r"^(\d{3})\b")


def status_of(error: RpcError) -> int | None:
    """The error's own words begin with the HTTP status, where there was one."""
    told = _STATUS.search(acp_errors.reason_of(error))
    return int(told[1]) if told is not None else None


def error_code(error: RpcError) -> ErrorCode:
    return acp_errors.code_of(error, status_of(error))


PROFILE = AcpProfile(
    engine=ENGINE,
    modes=words(lambda row: row.qwen),
    usage=UsageFrom.CHUNKS,
    error_code=error_code,
    ends_turn_on_no=True,
)


class QwenAdapter:
    provider = Provider.QWEN_CODE
    capabilities = Capabilities(
        deltas=True, reasoning=True, tools=True, permissions=True, questions=True, messages=True, interrupt=True, resume=True,
        usage=True, engine_modes=tuple(EngineMode),
    )  # fmt: skip
    install = Install(command="qwen", globs=("node_modules/@qwen-code/qwen-code/cli-entry.js",), pinned="0.24.4")
    credentials = CREDENTIALS[Provider.QWEN_CODE]

    def start(self, request: StartRequest) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request), request, None)

    def resume(self, request: StartRequest, session: str) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request), request, session)


def _setup(request: StartRequest) -> AcpSetup:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's value, ``capability_unavailable``."""
    acp_settings.refuse_schema(request, ENGINE)
    key = acp_settings.key_in(request, (KEY, OTHER_KEY))
    base_url = acp_settings.base_url_of(request, BASE_URL)
    if key is None and (base_url is not None or LOGIN_FILE not in request.credential_files):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"{ENGINE} needs {KEY}")
    if base_url is None and key is not None and not request.credential_env.get(KEY):
        base_url = OTHER_KEYS_URL
    env = {"QWEN_CODE_NO_RELAUNCH": "true", "NO_COLOR": "1"}
    env |= {KEY: key} if key is not None else {}
    env |= {"OPENAI_MODEL": request.model} if request.model else {}
    # an argument stands above the variable, which may be another one's
    endpoint = ("--openai-base-url", base_url) if base_url is not None else ()
    settings = json.dumps(_settings(request, "qwen-oauth" if key is None else "openai"))
    files = (File("home", f"{FOLDER}/settings.json", settings.encode()),)
    command = Command(argv=(request.executable, "--acp", *endpoint), env=env, files=files)
    return AcpSetup(command, acp_settings.mcp_servers(request))


def _settings(request: StartRequest, auth_type: str) -> dict[str, Any]:
    """Nothing that calls home. It retries in two loops, one within the other: only the inner one can be ended, and is."""
    return {
        "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "disableUpdateNag": True},
        "security": {"auth": {"selectedType": auth_type}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "model": {"generationConfig": {"maxRetries": 0}},
        "permissions": {"deny": acp_settings.tools_off(request, TOOLS, ENGINE)},
    }
