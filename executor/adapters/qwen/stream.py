"""What ``qwen --output-format stream-json`` prints, as events: Qwen Code's one-shot form, which only the harness starts.

Its lines have the shapes of another engine's, and other meanings: a failure of the model stands in an answer's words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp.one_shot import OneShot
from executor.adapters.acp.protocol import RpcError, Tokens
from executor.adapters.base import Outcome, Step
from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.adapters.engine_json import Decoder
from executor.adapters.framing import Line
from executor.adapters.qwen.adapter import PROFILE, TOOLS, error_code
from shared.errors import ErrorCode

_FROM_MODEL = re.compile(r"^\[API Error: (.*)\]$", re.DOTALL)
_NO_KEY = re.compile(r"No auth type is selected|Missing API key")
# A message of the engine about its model is no answer of the model.
_PROFILE = replace(PROFILE, own_remarks=re.compile(r"\[API Error: "))


class _Tokens(msgspec.Struct):
    """``input_tokens`` with what was cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class _Message(msgspec.Struct):
    content: str | list[_Block] = []
    usage: _Tokens | None = None


class _Delta(msgspec.Struct):
    text: str = ""
    thinking: str = ""


class _Event(msgspec.Struct):
    type: str = ""
    delta: _Delta | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _Told(msgspec.Struct):
    type: str
    subtype: str = ""
    session_id: str = ""
    parent_tool_use_id: str | None = None
    message: _Message | None = None
    event: _Event | None = None
    data: Any = None
    is_error: bool = False
    result: str = ""
    error: _Error | None = None


class StreamReader:
    """One process's stdout. An answer is told block by block, and before that in pieces where the user asked for them."""

    def __init__(self) -> None:
        self._decoder = Decoder(_Told)
        self._turn = OneShot(_PROFILE, TOOLS)
        self._blocks = 0
        self._is_streamed = False
        self._retries = 0

    def read(self, line: Line) -> list[Step] | None:
        told = self._decoder.decode(line.data)
        match told:
            case _Told(type="system", subtype="init"):
                return self._turn.in_session(told.session_id, line)
            case _Told(type="system", subtype="retry"):
                self._retries += 1
                self._is_streamed = False
                return self._turn.asked_again("the engine asks the model again", self._retries, line)
            case _Told(type="stream_event"):
                return self._on_piece(told, line)
            case _Told(type="assistant" | "user", message=_Message() as message):
                return self._on_message(message, told.parent_tool_use_id is None, line)
            case _Told(type="result"):
                return self._on_result(told, line)
            case _:
                return None

    def finished(self) -> list[Step]:
        return self._turn.finished()

    def ended(self, exit_code: int | None) -> Outcome | None:
        return self._turn.outcome()

    def _on_piece(self, told: _Told, line: Line) -> list[Step]:
        delta = told.event.delta if told.event is not None else None
        if delta is None or told.parent_tool_use_id is not None or not (delta.text or delta.thinking):
            return []
        self._is_streamed = True
        if delta.thinking:
            return self._turn.thought(delta.thinking, line)
        return self._turn.said(delta.text, line, str(self._blocks))

    def _on_message(self, message: _Message, is_own: bool, line: Line) -> list[Step]:
        steps: list[Step] = []
        for block in message.content if isinstance(message.content, list) else ():
            steps += self._on_block(block, is_own, line)
        if message.usage is not None and message.usage.input_tokens:
            used = message.usage
            tokens = Tokens(used.input_tokens, used.output_tokens, cached_read_tokens=used.cache_read_input_tokens)
            steps += self._turn.counted(tokens, line)
        return steps

    def _on_block(self, block: _Block, is_own: bool, line: Line) -> list[Step]:
        match block.type:
            case "text" | "thinking" if is_own:
                was_streamed, self._is_streamed = self._is_streamed, False
                said = self._turn.said(block.text, line, str(self._blocks)) if block.text and not was_streamed else []
                thought = self._turn.thought(block.thinking, line) if block.thinking and not was_streamed else []
                self._blocks += 1
                return [*said, *thought]
            case "tool_use":
                return self._turn.tool(block.id, block.name, block.input, line)
            case "tool_result":
                return self._turn.tool_ended(block.tool_use_id, not block.is_error, block.content, line)
            case _:
                return []

    def _on_result(self, told: _Told, line: Line) -> list[Step]:
        if not told.is_error and told.subtype == "success":
            return self._turn.ended_well(told.result)
        said = told.error.message if told.error is not None else told.result
        self._turn.failure = _failure(said)
        return self._turn.finished()


def _failure(said: str) -> tuple[ErrorCode, str]:
    if _NO_KEY.search(said):
        return ErrorCode.AUTH_MISSING, said
    found = _FROM_MODEL.match(said)
    error = RpcError(message=found[1] if found is not None else said)
    return error_code(error), capped(acp_errors.reason_of(error) or "the turn ended in an error", MAX_REASON_BYTES)[0]


def resume_arguments(session: str, message: str, more: Sequence[str]) -> tuple[str, ...]:
    return ("--resume", session, "--output-format", "stream-json", *more, f"--prompt={message}")
