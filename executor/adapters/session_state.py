"""What of an engine's HOME its sessions are made of, one table: what a snapshot holds so that another executor can resume them.

Never a file of credentials, and nothing that is laid anew at each start. A pattern is relative to HOME; its last part may hold
``*``, and a folder stands for all that is below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shared.contracts.providers import Provider

SESSION_STATE: Mapping[Provider, tuple[str, ...]] = MappingProxyType(
    {
        Provider.CODEX_APP_SERVER: (".codex/sessions", ".codex/*.sqlite*"),
        Provider.CLAUDE_CODE: (".claude/projects", ".claude/todos", ".claude/file-history"),
        Provider.OPENCODE: (
            ".local/share/opencode/opencode.db*",
            ".local/share/opencode/storage",
            ".local/share/opencode/snapshot",
        ),
        Provider.GEMINI_CLI: (".gemini/tmp", ".gemini/projects.json", ".gemini/history"),
        Provider.IFLOW_CLI: (),
        Provider.QWEN_CODE: (".qwen/projects", ".qwen/tmp"),
        Provider.SCRIPTED: (".scripted",),
    }
)
