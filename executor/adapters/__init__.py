"""Every engine Runyard can run: one adapter a provider. Adding one is a file beside this and a line in ``ADAPTERS``.

Adapters are pure: no process, file, socket, clock or task of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters.base import Adapter
from executor.adapters.claude_code import ClaudeAdapter
from executor.adapters.codex_app_server import CodexAdapter
from executor.adapters.gemini_cli import GeminiAdapter
from executor.adapters.iflow_cli import IflowAdapter
from executor.adapters.opencode import OpenCodeAdapter
from executor.adapters.qwen_code import QwenAdapter
from executor.adapters.scripted import ScriptedAdapter
from shared.contracts.providers import Provider

ADAPTERS: Mapping[Provider, Adapter] = MappingProxyType(
    {
        Provider.CODEX_APP_SERVER: CodexAdapter(),
        Provider.CLAUDE_CODE: ClaudeAdapter(),
        Provider.GEMINI_CLI: GeminiAdapter(),
        Provider.OPENCODE: OpenCodeAdapter(),
        Provider.IFLOW_CLI: IflowAdapter(),
        Provider.QWEN_CODE: QwenAdapter(),
        Provider.SCRIPTED: ScriptedAdapter(),
    }
)
