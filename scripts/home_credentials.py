"""What the engine CLIs keep in a person's home to sign in with: where it stands and how it is read. Writes nothing.

Values are held, never shown: not in a ``repr``, not in a problem.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider

MAX_FILE_BYTES = 1024 * 1024
Variables = Mapping[str, str]


class UnusableError(Exception):
    """A file that cannot be used. The text is the end of the problem's name: ``invalid_json``, ``empty``, …"""


@dataclass(frozen=True, slots=True)
class Source:
    """One file below the home. ``read`` finds variables in it; ``copy_to``: it is a credential itself."""

    provider: Provider
    engine: str
    part: str
    path: str
    read: Callable[[bytes, frozenset[str]], Variables]
    copy_to: str | None = None

    def problem(self, what: str) -> str:
        return f"{self.engine}_{self.part}_{what}"


@dataclass(frozen=True, slots=True)
class Found:
    """What one source gave. ``problem`` "…_missing" is no fault; any other one is."""

    source: Source
    variables: Variables = field(default_factory=dict[str, str], repr=False)
    content: bytes | None = field(default=None, repr=False)
    problem: str | None = None


def look(home: Path, source: Source) -> Found:
    """Never raises for what stands in a home."""
    try:
        with (home / source.path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise UnusableError("too_large")
        variables = source.read(content, frozenset(CREDENTIALS[source.provider].names))
    except (FileNotFoundError, NotADirectoryError):
        return Found(source, problem=source.problem("missing"))
    except OSError:
        return Found(source, problem=source.problem("unreadable"))
    except UnusableError as error:
        return Found(source, problem=source.problem(str(error)))
    return Found(source, variables, content if source.copy_to is not None else None)


# ---- readers: the bytes of a file and the names that are wanted, to variables ----


def _object(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise UnusableError("invalid_json") from None  # the original error quotes the text
    if not isinstance(said, dict):
        raise UnusableError("invalid_json")
    return cast(dict[str, Any], said)


def _login(content: bytes, _wanted: frozenset[str]) -> Variables:
    """A file that is copied as it is, if there is anything in it."""
    if not _object(content):
        raise UnusableError("empty")
    return {}


def _codex_login(content: bytes, _wanted: frozenset[str]) -> Variables:
    said = _object(content)
    if not said.get("OPENAI_API_KEY") and not said.get("tokens"):
        raise UnusableError("empty")
    return {}


def _codex_endpoint(content: bytes, _wanted: frozenset[str]) -> Variables:
    """The base URL of the chosen model provider."""
    try:
        said = tomllib.loads(content.decode())
    except ValueError:
        raise UnusableError("invalid_toml") from None
    chosen = said
    for name in ("model_providers", str(said.get("model_provider"))):
        below: Any = chosen.get(name) or {}
        if not isinstance(below, dict):
            raise UnusableError("invalid_model_providers")
        chosen = cast(dict[str, Any], below)
    return _texts({"OPENAI_BASE_URL": chosen.get("base_url")})


def _env_block(content: bytes, wanted: frozenset[str]) -> Variables:
    """The ``env`` object of a settings file."""
    block: Any = _object(content).get("env") or {}
    if not isinstance(block, dict):
        raise UnusableError("invalid_env")
    return _texts({name: value for name, value in cast(dict[str, Any], block).items() if name in wanted})


def _texts(variables: Mapping[str, Any]) -> Variables:
    if any(value is not None and not isinstance(value, str) for value in variables.values()):
        raise UnusableError("value_is_no_text")
    return {name: value for name, value in variables.items() if value}


_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?$""")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def _dotenv(content: bytes, wanted: frozenset[str]) -> Variables:
    """``NAME=value`` a line; quotes, ``export`` and comments as dotenv files have them."""
    try:
        lines = content.decode().split("\n")
    except ValueError:
        raise UnusableError("invalid_utf8") from None
    found: dict[str, str] = {}
    for line in lines:
        if (match := _LINE.match(line)) and match[1] in wanted:
            found[match[1]] = _unquoted(match[2])
    return {name: value for name, value in found.items() if value}


def _unquoted(value: str) -> str:
    if value[:1] not in ("'", '"') or not value:
        return re.sub(r"(^|\s+)#.*$", "", value)
    quoted = _QUOTED.match(value)
    if quoted is None:
        raise UnusableError("invalid_quotes")
    if quoted[1] is not None:
        return quoted[1]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted[2])


_CODEX, _CLAUDE, _OPENCODE, _GEMINI, _QWEN = (
    Provider.CODEX_APP_SERVER, Provider.CLAUDE_CODE, Provider.OPENCODE, Provider.GEMINI_CLI, Provider.QWEN_CODE,
)  # fmt: skip
# An engine's own order: what stands later wins within it.
SOURCES: tuple[Source, ...] = (
    Source(_CODEX, "codex", "auth", ".codex/auth.json", _codex_login, "codex/auth.json"),
    Source(_CODEX, "codex", "config", ".codex/config.toml", _codex_endpoint),
    Source(_CLAUDE, "claude", "settings", ".claude/settings.json", _env_block),
    Source(_CLAUDE, "claude", "credentials", ".claude/.credentials.json", _login, "claude/.credentials.json"),
    Source(_OPENCODE, "opencode", "auth", ".local/share/opencode/auth.json", _login, "opencode/auth.json"),
    Source(_OPENCODE, "opencode", "config", ".config/opencode/opencode.json", _login, "opencode/opencode.json"),
    Source(_GEMINI, "gemini", "env", ".gemini/.env", _dotenv),
    Source(_GEMINI, "gemini", "settings", ".gemini/settings.json", _env_block),
    Source(_GEMINI, "gemini", "oauth_creds", ".gemini/oauth_creds.json", _login, "gemini/oauth_creds.json"),
    Source(_QWEN, "qwen", "env", ".qwen/.env", _dotenv),
    Source(_QWEN, "qwen", "settings", ".qwen/settings.json", _env_block),
    Source(_QWEN, "qwen", "oauth_creds", ".qwen/oauth_creds.json", _login, "qwen/oauth_creds.json"),
)
