"""Where each engine's program is found and how it says its version, one table. Nothing is looked for here.

Read by the executor, which starts it, and by what tells an operator beforehand whether an executor would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shared.contracts.providers import CLOSED, Provider


@dataclass(frozen=True, slots=True)
class Install:
    """Where an engine's program is found and which version we recorded.

    ``globs`` are tried under the engines folder (the npm prefix), then ``command`` on PATH. ``version_pattern`` is a regular
    expression over what ``version_argv`` prints; its first group is the version. An empty ``globs`` and ``command``: it is us.
    ``closed``: why nobody can install it any more.
    """

    command: str = ""
    globs: tuple[str, ...] = ()
    version_argv: tuple[str, ...] = ("--version",)
    version_pattern: str = r"(\d+\.\d+\.\d+)"
    pinned: str | None = None
    closed: str | None = None


INSTALLS: Mapping[Provider, Install] = MappingProxyType(
    {
        Provider.CODEX_APP_SERVER: Install(
            command="codex",
            globs=(
                "node_modules/@openai/codex-linux-*/vendor/*/bin/codex",
                "node_modules/@openai/codex/node_modules/@openai/codex-linux-*/vendor/*/bin/codex",
            ),
            version_pattern=r"codex-cli (\d+\.\d+\.\d+)",
            pinned="0.169.0",
        ),
        Provider.CLAUDE_CODE: Install(
            command="claude",
            # the program itself first: the other one is made of it by an install script, which may not have run
            globs=(
                "node_modules/@anthropic-ai/claude-code-linux-*/claude",
                "node_modules/@anthropic-ai/claude-code/bin/claude.exe",
            ),
            version_pattern=r"(\d+\.\d+\.\d+) \(Claude Code\)",
            pinned="2.1.197",
        ),
        Provider.OPENCODE: Install(command="opencode", globs=("node_modules/opencode-ai/bin/opencode.exe",), pinned="1.18.33"),
        Provider.GEMINI_CLI: Install(
            command="gemini", globs=("node_modules/@google/gemini-cli/bundle/gemini.js",), pinned="0.61.0"
        ),
        Provider.IFLOW_CLI: Install(command="iflow", closed=CLOSED[Provider.IFLOW_CLI]),
        Provider.QWEN_CODE: Install(command="qwen", globs=("node_modules/@qwen-code/qwen-code/cli-entry.js",), pinned="0.24.4"),
        Provider.SCRIPTED: Install(version_argv=()),
    }
)
