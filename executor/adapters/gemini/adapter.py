"""Gemini CLI over ACP: how it is started and resumed, what its HOME must contain, and what it says its own way."""

from __future__ import annotations

import json
import re
from typing import Any

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp import settings as acp_settings
from executor.adapters.acp.conversation import AcpConversation
from executor.adapters.acp.profile import AcpProfile, UsageFrom
from executor.adapters.acp.protocol import RpcError
from executor.adapters.acp.settings import AcpSetup
from executor.adapters.base import Command, File, StartRequest
from executor.adapters.engine_modes import words
from executor.adapters.options import base_url_of
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

ENGINE = "gemini-cli"
KEY, OTHER_KEY = "GEMINI_API_KEY", "GOOGLE_API_KEY"
BASE_URL = "GOOGLE_GEMINI_BASE_URL"
FOLDER = ".gemini"
LOGIN_FILE = f"{FOLDER}/oauth_creds.json"
MAX_ATTEMPTS = 3  # of one model call; its own default goes on for minutes
TOOLS = {
    "shell": ("run_shell_command",),
    "edit": ("write_file", "replace"),
    "web_search": ("google_web_search",),
    "web_fetch": ("web_fetch",),
}

# A folder it trusts configures it: programs it starts, rules of what may be done unasked, sub-agents with servers of their own.
# One it does not trust gets no tool server, no skill, no instructions and two modes only. There is nothing in between.
_REFUSE = acp_settings.refusal(FOLDER, ("settings.json", ".env", "policies", "agents", "extensions"))
# A session loaded in the clock minute in which it was created would be overwritten by the file that loading begins, because both
# are named by that minute. So its file gets a name of no minute first; it is found by its ending.
# A prompt that was stopped, or failed, is taken back: the file's last word is then the list of messages as it was before. What
# the user had asked is written once more after it, or the next run would not know of it, and a session of nothing else is none.
_KEEP_SESSION = r"""
taken_back='
  /^\{"id":"[^"]*","timestamp":"[^"]*","type":/ { last = "" }
  /^\{"id":"[^"]*","timestamp":"[^"]*","type":"user"/ { asked[++count] = $0 }
  /^\{"\$set":\{"messages":/ { last = $0; held = count; count = 0 }
  END {
    for (n = 1; last != "" && n <= held; n++) {
      split(asked[n], part, "\"")
      if (!index(last, "\"id\":\"" part[4] "\"")) print asked[n]
    }
  }
'
for file in "$HOME"/.gemini/tmp/*/chats/session-*-"$1".jsonl; do
  kept="${file%/*}/session-kept-$1.jsonl"
  if [ -f "$file" ] && [ ! -e "$kept" ]; then mv "$file" "$kept"; fi
done
for file in "$HOME"/.gemini/tmp/*/chats/session-*-"$1".jsonl; do
  if [ -f "$file" ]; then asked=$(awk "$taken_back" "$file") && [ -n "$asked" ] && printf '%s\n' "$asked" >> "$file"; fi
done
shift
exec "$@"
"""
_STATUS = re.compile(r'"code"\s*:\s*(\d{3})\b')


def status_of(error: RpcError) -> int | None:
    """The error's code is the HTTP status. What the engine put into words of its own is called 500, whatever it was."""
    told = _STATUS.search(error.message)
    if told is not None:
        return int(told[1])
    return error.code if 400 <= error.code < 500 else None


def error_code(error: RpcError) -> ErrorCode:
    return acp_errors.code_of(error, status_of(error))


PROFILE = AcpProfile(
    engine=ENGINE,
    modes=words(lambda row: row.gemini),
    usage=UsageFrom.QUOTA,
    error_code=error_code,
    says_again=True,
    needs_model_usage=True,
    own_remarks=re.compile(r"\[MODE_UPDATE\] "),
)


class GeminiAdapter:
    provider = Provider.GEMINI_CLI
    capabilities = Capabilities(
        deltas=True, reasoning=True, tools=True, permissions=True, messages=True, interrupt=True, resume=True, usage=True,
        engine_modes=tuple(EngineMode),
    )  # fmt: skip
    install = INSTALLS[Provider.GEMINI_CLI]
    credentials = CREDENTIALS[Provider.GEMINI_CLI]

    def start(self, request: StartRequest) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request), request, None)

    def resume(self, request: StartRequest, session: str) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request, session), request, session)


def _setup(request: StartRequest, session: str | None = None) -> AcpSetup:
    """Raises ``RunyardError``: ``auth_missing``, ``invalid_request`` for an option's value, ``capability_unavailable``."""
    acp_settings.refuse_schema(request, ENGINE)
    key = acp_settings.key_in(request, (KEY, OTHER_KEY))
    has_login = LOGIN_FILE in request.credential_files
    base_url = base_url_of(request, BASE_URL)
    if key is None and (base_url is not None or not has_login):
        raise RunyardError(ErrorCode.AUTH_MISSING, f"{ENGINE} needs {KEY}")
    argv = (request.executable, "--acp", *(("-m", request.model) if request.model else ()))
    then = ('exec "$@"',) if session is None else (_KEEP_SESSION,)
    argv = ("/bin/sh", "-c", "".join((_REFUSE, *then)), ENGINE, *(() if session is None else (session[:8],)), *argv)
    env = {"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true", "NO_COLOR": "1"}
    env |= {KEY: key} if key is not None else {}
    env |= {BASE_URL: base_url} if base_url is not None else {}
    settings = json.dumps(_settings(request, "oauth-personal" if key is None else "gemini-api-key"))
    # the first of these files it finds is the one it reads, and in HOME an earlier run may have left one
    files = (File("home", f"{FOLDER}/settings.json", settings.encode()), File("home", f"{FOLDER}/.env", b""))
    return AcpSetup(Command(argv=argv, env=env, files=files), acp_settings.mcp_servers(request))


def _settings(request: StartRequest, auth_type: str) -> dict[str, Any]:
    """Nothing that calls home or deletes a session, no ``.env`` of a workspace, retries that end, two names of instruction files.

    With retention on, the next start would take a resumed session's new, still empty file for a broken one and delete them all.
    """
    return {
        "general": {
            "enableAutoUpdate": False,
            "enableAutoUpdateNotification": False,
            "maxAttempts": MAX_ATTEMPTS,
            "sessionRetention": {"enabled": False},
        },
        "security": {"auth": {"selectedType": auth_type}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "context": {"fileName": ["GEMINI.md", "AGENTS.md"]},
        "advanced": {"ignoreLocalEnv": True},
        "tools": {"exclude": acp_settings.tools_off(request, TOOLS, ENGINE)},
    }
