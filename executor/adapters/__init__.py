"""Every engine Runyard can run: one adapter a provider. Adding one is a package beside this and a line in ``ADAPTERS``.

Adapters are pure: no process, file, socket, clock or task of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters.base import Adapter
from executor.adapters.claude.adapter import ClaudeAdapter
from executor.adapters.codex.adapter import CodexAdapter
from executor.adapters.gemini.adapter import GeminiAdapter
from executor.adapters.iflow import IflowAdapter
from executor.adapters.opencode.adapter import OpenCodeAdapter
from executor.adapters.qwen.adapter import QwenAdapter
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
