"""What one-shot forms of engines that also speak ACP have in common: their lines become the very events of a conversation.

Only the harness starts them. A reader translates its engine's lines; what they mean is told in one place for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executor.adapters.acp.events import PromptEvents
from executor.adapters.acp.log import Retry
from executor.adapters.acp.profile import AcpProfile
from executor.adapters.acp.protocol import Chunk, ChunkMeta, Text, Tokens, ToolCall, ToolMeta
from executor.adapters.acp.tools import EDIT, SHELL
from executor.adapters.base import Emit, Outcome, Step
from executor.adapters.framing import Line
from shared.contracts.events import AttemptOutcome, MessageCompleted, SessionStarted
from shared.errors import ErrorCode

_KINDS = {"shell": SHELL, "edit": EDIT}
Failure = tuple[ErrorCode, str]


class OneShot:
    """One process's turn. ``failure``: why there is no answer, as long as none follows it."""

    def __init__(self, profile: AcpProfile, tools: Mapping[str, tuple[str, ...]]) -> None:
        """``tools``: the engine's own names by the name all engines share."""
        self.failure: Failure | None = None
        self._engine = profile.engine
        self._events = PromptEvents(profile)
        self._kinds = {own: _KINDS[name] for name, names in tools.items() if name in _KINDS for own in names}
        self._session: str | None = None
        self._is_over = False

    def in_session(self, session: str, line: Line) -> list[Step]:
        """``session.started``, once."""
        if session == self._session or not session:
            return []
        self._session = session
        return [Emit(SessionStarted(engine_session=session), line.byte_from, line.byte_to)]

    def said(self, text: str, line: Line, message_id: str = "") -> list[Step]:
        return self._events.said(Chunk(Text("text", text), message_id), line)

    def thought(self, text: str, line: Line) -> list[Step]:
        return self._events.thought(Chunk(Text("text", text)), line)

    def counted(self, tokens: Tokens, line: Line) -> list[Step]:
        """Tokens that were not told before."""
        return self._events.said(Chunk(Text(), meta=ChunkMeta(tokens)), line)

    def tool(self, id: str, name: str, given: Any, line: Line) -> list[Step]:
        call = ToolCall(id, name, self._kinds.get(name), "in_progress", raw_input=given, meta=ToolMeta(tool_name=name))
        return self._events.tool(call, line)

    def tool_ended(self, id: str, is_well: bool, output: Any, line: Line) -> list[Step]:
        return self._events.tool(ToolCall(id, status="completed" if is_well else "failed", raw_output=output), line)

    def asked_again(self, reason: str, attempt: int, line: Line) -> list[Step]:
        return self._events.retried(Retry(reason, ErrorCode.MODEL_UNAVAILABLE, attempt, starts_over=True), line)

    def ended_well(self, answer: str | None = None) -> list[Step]:
        """The turn is over. ``answer``: the engine's own word for its final text, where it has one."""
        self.failure, self._is_over = None, True
        if answer is None:
            return self._events.prompt_ended(final=True)
        closed = self._events.prompt_ended(final=True)
        if not answer or self._events.answer == answer:
            return closed
        self._events.answer = answer
        return [*(_not_final(step) for step in closed), Emit(MessageCompleted(message_id="answer", text=answer, final=True))]

    def finished(self) -> list[Step]:
        """Nothing more will come."""
        return self._events.prompt_ended(final=False, well=False)

    def outcome(self) -> Outcome | None:
        """None where the engine did not say how its turn ended."""
        usage, answer = self._events.usage, self._events.answer
        if self.failure is not None:
            return Outcome(AttemptOutcome.ERROR, *self.failure, usage=usage)
        if not self._is_over:
            return None
        if not answer:
            return Outcome(
                AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, f"{self._engine} finished without an answer", usage=usage
            )
        return Outcome(AttemptOutcome.SUCCESS, result=answer, usage=usage)


def _not_final(step: Step) -> Step:
    if isinstance(step, Emit) and isinstance(step.payload, MessageCompleted):
        return Emit(step.payload.model_copy(update={"final": False}), step.byte_from, step.byte_to)
    return step
