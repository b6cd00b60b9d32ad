"""Qwen Code over ACP: how it is started and resumed, what its HOME must contain, and what it says its own way."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp import settings as acp_settings
from executor.adapters.acp.conversation import AcpConversation
from executor.adapters.acp.profile import AcpProfile, LogLine, UsageFrom
from executor.adapters.acp.protocol import RpcError
from executor.adapters.acp.settings import AcpSetup
from executor.adapters.base import Command, File, StartRequest
from executor.adapters.engine_modes import words
from executor.adapters.options import base_url_of
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

ENGINE = "qwen-code"
KEY, OTHER_KEY = "OPENAI_API_KEY", "DASHSCOPE_API_KEY"
BASE_URL = "OPENAI_BASE_URL"
OTHER_KEYS_URL = "https://dashscope.aliyuncs.com/compatible-mode/v1"
FOLDER = ".qwen"
LOGIN_FILE = f"{FOLDER}/oauth_creds.json"
TOOLS = {"shell": ("run_shell_command",), "edit": ("write_file", "edit", "notebook_edit"), "web_fetch": ("web_fetch",)}

# Its retries stand in its debug log only, a file by the session's name. So it gets a name known beforehand, and the file is a
# way to stderr.
SESSION_ID = "qwen-code/sessionId"
_NAMESPACE = uuid.UUID("5f2f7d0e-9a52-4f0b-8a7e-6d1d4c1b7a90")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A folder configures it, and its settings trust each or none.
_REFUSE = acp_settings.refusal(FOLDER, ("settings.json", ".env", "agents", "extensions", "hooks"))
# What a plain file of variables in the workspace may not set: where requests go, and what programs are loaded.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_NOT_FROM_ENV_FILES = (
    *_PROXIES, *(each.lower() for each in _PROXIES), "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "DASHSCOPE_API_KEY",
    "QWEN_MODEL", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "QWEN_CODE_SYSTEM_SETTINGS_PATH",
    "QWEN_CODE_SYSTEM_DEFAULTS_PATH", "QWEN_CODE_TRUSTED_FOLDERS_PATH", "DEBUG", "DEBUG_MODE",
)  # fmt: skip
_SHOW_LOG = """
mkdir -p "$HOME/.qwen/debug" && ln -sf /dev/stderr "$HOME/.qwen/debug/$1.txt"
shift
exec "$@"
"""
_OWN_LOG = r"^\d{4}-\d\d-\d\dT\S+Z \[(?:DEBUG|INFO|WARN|ERROR)\] "
_STATUS = re.compile(r"^(\d{3})\b")


def status_of(error: RpcError) -> int | None:
    """The error's own words begin with the HTTP status, where there was one."""
    told = _STATUS.search(acp_errors.reason_of(error))
    return int(told[1]) if told is not None else None


def error_code(error: RpcError) -> ErrorCode:
    return ErrorCode.ENGINE_NO_OUTPUT if "NO_RESPONSE_TEXT" in error.message else acp_errors.code_of(error, status_of(error))


PROFILE = AcpProfile(
    engine=ENGINE,
    modes=words(lambda row: row.qwen),
    usage=UsageFrom.CHUNKS,
    error_code=error_code,
    ends_turn_on_no=True,
    says_again=True,
    log=(
        (re.compile(_OWN_LOG + r"\[OPENAI_ERROR\] OpenAI API Error: (.*?)(?: \{.*)?$"), LogLine.FAILED),
        (
            re.compile(_OWN_LOG + r"\[RETRY\] Attempt (?P<attempt>\d{1,9}) failed(?:.* explicit delay of (?P<wait>\d{1,9})ms)?"),
            LogLine.AGAIN,
        ),
        (
            re.compile(_OWN_LOG + r"\[QWEN_CODE_CHAT\] (?P<reason>Invalid stream \[\w+\]) \(retry (?P<attempt>\d{1,9})/"),
            LogLine.BROKEN,
        ),
        (re.compile(_OWN_LOG), LogLine.NOISE),
        (re.compile(r"^(?:  |\}|fatal: not a git repository|\[perf\] )"), LogLine.NOISE),  # what such a line says further
    ),
)


class QwenAdapter:
    provider = Provider.QWEN_CODE
    capabilities = Capabilities(
        deltas=True, reasoning=True, tools=True, permissions=True, questions=True, messages=True, interrupt=True, resume=True,
        usage=True, engine_modes=tuple(EngineMode),
    )  # fmt: skip
    install = INSTALLS[Provider.QWEN_CODE]
    credentials = CREDENTIALS[Provider.QWEN_CODE]

    def start(self, request: StartRequest) -> AcpConversation:
        session = str(uuid.uuid5(_NAMESPACE, f"{request.run_id}.{request.attempt}"))
        return AcpConversation(PROFILE, _setup(request, session), request, None)

    def resume(self, request: StartRequest, session: str) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request, session), request, session)


def _setup(request: StartRequest, session: str) -> AcpSetup:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's value, ``capability_unavailable``."""
    acp_settings.refuse_schema(request, ENGINE)
    key = acp_settings.key_in(request, (KEY, OTHER_KEY))
    base_url = base_url_of(request, BASE_URL)
    if key is None and (base_url is not None or LOGIN_FILE not in request.credential_files):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"{ENGINE} needs {KEY}")
    if base_url is None and key is not None and not request.credential_env.get(KEY):
        base_url = OTHER_KEYS_URL
    env = {"QWEN_CODE_NO_RELAUNCH": "true", "NO_COLOR": "1", "QWEN_DEBUG_LOG_FILE": "1"}
    env |= {KEY: key} if key is not None else {}
    env |= {"OPENAI_MODEL": request.model} if request.model else {}
    # an argument stands above the variable, which may be another one's
    endpoint = ("--openai-base-url", base_url) if base_url is not None else ()
    settings = json.dumps(_settings(request, "qwen-oauth" if key is None else "openai"))
    files = (File("home", f"{FOLDER}/settings.json", settings.encode()),)
    if _UUID.fullmatch(session):
        shown = ("/bin/sh", "-c", _REFUSE + _SHOW_LOG, ENGINE, session)
    else:  # whatever else a caller names
        shown = ("/bin/sh", "-c", _REFUSE + 'exec "$@"', ENGINE)
    command = Command(argv=(*shown, request.executable, "--acp", *endpoint), env=env, files=files)
    return AcpSetup(command, acp_settings.mcp_servers(request), new_session={"_meta": {SESSION_ID: session}})


def _settings(request: StartRequest, auth_type: str) -> dict[str, Any]:
    """Nothing that calls home. It retries in two loops, one within the other: this ends the inner one."""
    return {
        "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "disableUpdateNag": True},
        "security": {"auth": {"selectedType": auth_type}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "model": {"generationConfig": {"maxRetries": 0}},
        "advanced": {"excludedEnvVars": list(_NOT_FROM_ENV_FILES)},
        "permissions": {"deny": acp_settings.tools_off(request, TOOLS, ENGINE)},
    }
