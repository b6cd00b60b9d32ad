"""How the harness reads each engine and goes on with its sessions. An engine without a row is run and shown as raw lines."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters import claude_stream, codex_exec, gemini_stream, opencode_run, qwen_stream
from executor.adapters.passed_through import Form
from shared.contracts.providers import Provider

FORMS: Mapping[Provider, Form] = MappingProxyType(
    {
        Provider.CODEX_APP_SERVER: Form(codex_exec.ExecReader, codex_exec.resume_arguments),
        Provider.CLAUDE_CODE: Form(claude_stream.StreamReader, claude_stream.resume_arguments),
        Provider.GEMINI_CLI: Form(gemini_stream.StreamReader, gemini_stream.resume_arguments),
        Provider.OPENCODE: Form(opencode_run.RunReader, opencode_run.resume_arguments),
        Provider.QWEN_CODE: Form(qwen_stream.StreamReader, qwen_stream.resume_arguments),
    }
)
