"""What ``gemini --output-format stream-json`` prints, as events: Gemini CLI's one-shot form, which only the harness starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp.one_shot import OneShot
from executor.adapters.acp.profile import UsageFrom
from executor.adapters.acp.protocol import RpcError, Tokens
from executor.adapters.base import Emit, Outcome, Step
from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.engine_json import Decoder
from executor.adapters.framing import Line
from executor.adapters.gemini.adapter import PROFILE, TOOLS, error_code
from shared.contracts.events import AttemptOutcome, Diagnostic
from shared.errors import ErrorCode

_FROM_MODEL = re.compile(r"^\[API Error: (.*?)\](?:\n.*)?$", re.DOTALL)
_OWN_WORDS = (
    (re.compile(r"empty response"), ErrorCode.ENGINE_NO_OUTPUT),
    (re.compile(r"stream ended without"), ErrorCode.MODEL_UNAVAILABLE),
)
# Its exit status, where it ends before it has said anything on stdout.
EXITS: Mapping[int, tuple[ErrorCode, str]] = MappingProxyType(
    {
        41: (ErrorCode.AUTH_MISSING, "gemini-cli has nothing to sign in with"),
        42: (ErrorCode.INVALID_REQUEST, "gemini-cli refused its arguments, or knows no such session here"),
        55: (ErrorCode.PERMISSION_DENIED, "gemini-cli does not trust this folder"),
    }
)


class _Stats(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0


class _Error(msgspec.Struct):
    message: str = ""


class _Told(msgspec.Struct):
    type: str
    session_id: str = ""
    role: str = ""
    content: str = ""
    tool_name: str = ""
    tool_id: str = ""
    parameters: Any = None
    status: str = ""
    output: Any = None
    message: str = ""
    error: _Error | None = None
    stats: _Stats | None = None


class StreamReader:
    """One process's stdout. Its last line tells how the turn ended."""

    def __init__(self) -> None:
        self._decoder = Decoder(_Told)
        self._turn = OneShot(replace(PROFILE, usage=UsageFrom.CHUNKS), TOOLS)
        self._complaint = ""

    def read(self, line: Line) -> list[Step] | None:
        told, turn = self._decoder.decode(line.data), self._turn
        match told.type:
            case "init":
                return turn.in_session(told.session_id, line)
            case "message":
                return turn.said(told.content, line) if told.role == "assistant" else []
            case "tool_use":
                return turn.tool(told.tool_id, told.tool_name, told.parameters, line)
            case "tool_result":
                output = told.output if told.error is None else told.error.message
                return turn.tool_ended(told.tool_id, told.status == "success", output, line)
            case "error":
                self._complaint = told.message
                warning = Diagnostic(code="engine_error", severity="warning", message=told.message[:2000])
                return [Emit(warning, line.byte_from, line.byte_to)]
            case "result":
                return self._on_result(told, line)
            case _:
                return None

    def finished(self) -> list[Step]:
        return self._turn.finished()

    def ended(self, exit_code: int | None) -> Outcome | None:
        outcome = self._turn.outcome()
        if outcome is not None or exit_code is None or exit_code not in EXITS:
            return outcome
        return Outcome(AttemptOutcome.ERROR, *EXITS[exit_code])

    def _on_result(self, told: _Told, line: Line) -> list[Step]:
        stats = told.stats or _Stats()
        counted = self._turn.counted(Tokens(stats.input_tokens, stats.output_tokens, cached_read_tokens=stats.cached), line)
        if told.status == "success":
            return [*counted, *self._turn.ended_well()]
        said = told.error.message if told.error is not None else self._complaint
        self._turn.failure = _failure(said)
        return [*counted, *self._turn.finished()]


def _failure(said: str) -> tuple[ErrorCode, str]:
    for pattern, code in _OWN_WORDS:
        if pattern.search(said):
            return code, said
    found = _FROM_MODEL.match(said)
    error = RpcError(message=found[1] if found is not None else said)
    return error_code(error), capped(acp_errors.reason_of(error) or "the turn ended in an error", MAX_REASON_BYTES)[0]


def resume_arguments(session: str, message: str, more: Sequence[str]) -> tuple[str, ...]:
    return ("--resume", session, "--output-format", "stream-json", *more, f"--prompt={message}")
