"""What ``opencode run --format json`` prints, as events: the one-shot form of OpenCode, which only the harness starts.

It prints blocks of text that are whole and tools that have ended, and no word of its own about the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp.one_shot import OneShot
from executor.adapters.acp.protocol import RpcError
from executor.adapters.base import Emit, Outcome, Step
from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.engine_json import Decoder
from executor.adapters.framing import Line
from executor.adapters.opencode.adapter import PROFILE, TOOLS
from shared.contracts.events import Diagnostic, Usage, UsageUpdated
from shared.errors import ErrorCode

_STOP, _LENGTH = "stop", "length"
# To its permissions writing a file is an edit; its tools have names of their own.
_TOOLS = {**TOOLS, "edit": ("edit", "write", "patch")}


class _Cache(msgspec.Struct):
    read: int = 0
    write: int = 0


class _Tokens(msgspec.Struct):
    """``input`` without what was cached, ``output`` without thoughts."""

    input: int = 0
    output: int = 0
    reasoning: int = 0
    cache: _Cache = msgspec.field(default_factory=_Cache)


class _State(msgspec.Struct):
    status: str = ""
    input: Any = None
    output: Any = None
    error: Any = None
    metadata: Any = None


class _Part(msgspec.Struct):
    message_id: str = msgspec.field(default="", name="messageID")
    text: str = ""
    tool: str = ""
    call_id: str = msgspec.field(default="", name="callID")
    state: _State = msgspec.field(default_factory=_State)
    reason: str = ""
    tokens: _Tokens = msgspec.field(default_factory=_Tokens)
    cost: float = 0


class _ErrorData(msgspec.Struct):
    message: str = ""
    status_code: int | None = msgspec.field(default=None, name="statusCode")
    response_body: str = msgspec.field(default="", name="responseBody")


class _Error(msgspec.Struct):
    name: str = ""
    data: _ErrorData = msgspec.field(default_factory=_ErrorData)


class _Told(msgspec.Struct):
    type: str
    session_id: str = msgspec.field(default="", name="sessionID")
    part: _Part = msgspec.field(default_factory=_Part)
    error: _Error | None = None


class RunReader:
    """One process's stdout. The turn ended well when its last step stopped by itself; that is known when stdout ends.

    An error is the end of it: what OpenCode still says after one is about the error, and its exit status is 1.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(_Told)
        self._turn = OneShot(PROFILE, _TOOLS)
        self._usage = Usage()
        self._last_reason = ""

    def read(self, line: Line) -> list[Step] | None:
        told = self._decoder.decode(line.data)
        read = self._on_told(told, line)
        return None if read is None else [*self._turn.in_session(told.session_id, line), *read]

    def finished(self) -> list[Step]:
        if self._last_reason == _STOP and self._turn.failure is None:
            return self._turn.ended_well()
        if self._last_reason == _LENGTH and self._turn.failure is None:
            self._turn.failure = ErrorCode.OUTPUT_LIMIT, "the model's answer is longer than it may be"
        return self._turn.finished()

    def ended(self, exit_code: int | None) -> Outcome | None:
        outcome = self._turn.outcome()
        if outcome is None or not self._usage.input_tokens:
            return outcome
        return Outcome(outcome.outcome, outcome.error_code, outcome.error_message, outcome.result, self._usage)

    def _on_told(self, told: _Told, line: Line) -> list[Step] | None:
        part, turn = told.part, self._turn
        match told.type:
            case "step_start":
                self._last_reason = ""
                return []
            case "text":
                return turn.said(part.text, line, part.message_id)
            case "reasoning":
                return turn.thought(part.text, line)
            case "tool_use":
                return self._on_tool(part, line)
            case "step_finish":
                self._last_reason = part.reason
                return self._count(part, line)
            case "error" if told.error is not None:
                return self._on_error(told.error, line)
            case _:
                return None

    def _on_tool(self, part: _Part, line: Line) -> list[Step]:
        state = part.state
        output = {"output": state.output, "error": state.error, "metadata": state.metadata}
        begun = self._turn.tool(part.call_id, part.tool, state.input, line)
        return [*begun, *self._turn.tool_ended(part.call_id, state.status == "completed", output, line)]

    def _count(self, part: _Part, line: Line) -> list[Step]:
        more, before = part.tokens, self._usage
        self._usage = Usage(
            input_tokens=before.input_tokens + more.input + more.cache.read + more.cache.write,
            cached_input_tokens=(before.cached_input_tokens or 0) + more.cache.read,
            output_tokens=before.output_tokens + more.output + more.reasoning,
            reasoning_tokens=(before.reasoning_tokens or 0) + more.reasoning,
            cost_usd=(before.cost_usd or 0) + part.cost or None,  # 0: it knows no price
        )
        return [Emit(UsageUpdated(usage=self._usage), line.byte_from, line.byte_to)]

    def _on_error(self, error: _Error, line: Line) -> list[Step]:
        said = RpcError(message=error.data.message or error.name, data=error.data.response_body or None)
        overflow = error.name == "ContextOverflowError"
        code = ErrorCode.CONTEXT_OVERFLOW if overflow else acp_errors.code_of(said, error.data.status_code)
        reason, _ = capped(said.message, MAX_REASON_BYTES)
        self._last_reason, self._turn.failure = "", (code, reason)
        return [Emit(Diagnostic(code="engine_error", severity="warning", message=reason), line.byte_from, line.byte_to)]


def resume_arguments(session: str, message: str, more: Sequence[str]) -> tuple[str, ...]:
    """As from a shell: a message of several words reaches the model in quotation marks, which OpenCode puts round it."""
    return ("run", "--format", "json", "--session", session, *more, "--", message)
