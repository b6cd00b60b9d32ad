"""How each engine signs in: the names of its variables and files, one table. Never a value.

Read by the executor, which hands them to the engine, and by what an operator prepares an executor with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shared.contracts.providers import Provider


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """``source`` is relative to the executor's directory of credentials, ``target`` to the engine's HOME."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """Any one of ``keys`` or of ``files`` will do, the first is the usual one; neither: the engine needs none.

    ``more`` are variables that go with them and do not suffice: where they are sent, which account.
    """

    keys: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    files: tuple[CredentialFile, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.keys + self.more


_F = CredentialFile
CREDENTIALS: Mapping[Provider, Credentials] = MappingProxyType(
    {
        Provider.CODEX_APP_SERVER: Credentials(
            keys=("OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_AUTH_JSON"),
            more=("OPENAI_BASE_URL",),
            files=(_F("codex/auth.json", ".codex/auth.json"),),
        ),
        Provider.CLAUDE_CODE: Credentials(
            keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
            more=("ANTHROPIC_BASE_URL",),
            files=(_F("claude/.credentials.json", ".claude/.credentials.json"),),
        ),
        Provider.OPENCODE: Credentials(
            keys=("OPENCODE_AUTH_CONTENT", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"),
            files=(
                _F("opencode/auth.json", ".local/share/opencode/auth.json"),
                _F("opencode/opencode.json", ".config/opencode/opencode.json"),
            ),
        ),
        Provider.GEMINI_CLI: Credentials(
            keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            more=("GOOGLE_GEMINI_BASE_URL",),
            files=(_F("gemini/oauth_creds.json", ".gemini/oauth_creds.json"),),
        ),
        Provider.IFLOW_CLI: Credentials(keys=("IFLOW_API_KEY",), more=("IFLOW_BASE_URL",)),
        Provider.QWEN_CODE: Credentials(
            keys=("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
            more=("OPENAI_BASE_URL",),
            files=(_F("qwen/oauth_creds.json", ".qwen/oauth_creds.json"),),
        ),
        Provider.SCRIPTED: Credentials(),
    }
)
