"""What each engine takes of what a caller may give every one of them, as documents print it. Decides nothing.

Tools and options are those the adapters go by; where instructions are looked for is the engines' own doing, measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from executor.adapters.claude import config as claude_config
from executor.adapters.codex import config as codex_config
from executor.adapters.gemini import adapter as gemini_cli
from executor.adapters.mcp_servers import KINDS
from executor.adapters.opencode import adapter as opencode
from executor.adapters.options import EVERYWHERE
from executor.adapters.qwen import adapter as qwen_code
from executor.adapters.skills import FOLDER
from shared.contracts.providers import Provider


@dataclass(frozen=True, slots=True)
class Takes:
    """``tools``: those that can be switched off, by the names all share; ``any_tool``: any other by the engine's name, too.

    ``skills``: which of those in the workspace it finds; the ones a request names are named to its model by all.
    ``instructions``: the workspace's files that are read for the model. ``options``: those not all engines know.
    """

    tools: Collection[str]
    instructions: tuple[str, ...]
    skills: str = f"all in `{FOLDER}`"
    servers: Collection[str] = KINDS
    options: Collection[str] = ()
    any_tool: bool = False


TAKES: Mapping[Provider, Takes] = MappingProxyType({
    Provider.CODEX_APP_SERVER: Takes(
        (codex_config.WEB_SEARCH,), ("AGENTS.md", "else CLAUDE.md"), servers=codex_config.MCP_KINDS,
        options=codex_config.OPTIONS - EVERYWHERE,
    ),
    Provider.CLAUDE_CODE: Takes(
        claude_config.TOOLS, ("CLAUDE.md", "AGENTS.md"), skills=f"of those in `{FOLDER}` the named ones",
        options=claude_config.OPTIONS - EVERYWHERE, any_tool=True,
    ),
    Provider.GEMINI_CLI: Takes(gemini_cli.TOOLS, ("GEMINI.md", "AGENTS.md")),
    Provider.OPENCODE: Takes(
        opencode.TOOLS, ("AGENTS.md", "else CLAUDE.md"), options=opencode.PROFILE.options - EVERYWHERE
    ),
    Provider.QWEN_CODE: Takes(qwen_code.TOOLS, ("QWEN.md", "AGENTS.md")),
})  # fmt: skip
