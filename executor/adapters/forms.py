"""How the harness reads each engine and goes on with its sessions. An engine without a row is run and shown as raw lines."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from executor.adapters.claude import stream as claude_stream
from executor.adapters.codex import exec as codex_exec
from executor.adapters.gemini import stream as gemini_stream
from executor.adapters.opencode import run as opencode_run
from executor.adapters.passed_through import Form
from executor.adapters.qwen import stream as qwen_stream
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
