"""What ``claude --output-format stream-json`` prints, as events: Claude Code without the control protocol, for the harness."""

from __future__ import annotations

from collections.abc import Sequence

from executor.adapters.base import Emit, Outcome, Step
from executor.adapters.claude import protocol
from executor.adapters.claude.errors import code_of, reason_of
from executor.adapters.claude.events import TurnEvents
from executor.adapters.claude.protocol import Init, Result
from executor.adapters.framing import Line
from shared.contracts.events import AttemptOutcome, SessionStarted
from shared.errors import ErrorCode


class StreamReader:
    """One process's stdout. Its outcome is its result's."""

    def __init__(self) -> None:
        self._events = TurnEvents()
        self._session: str | None = None
        self._result: Result | None = None

    def read(self, line: Line) -> list[Step] | None:
        head = protocol.read_head(line.data)
        told = protocol.read_line(head, line.data)
        match told:
            case None:
                return [] if protocol.is_noise(head) else None
            case Init(session_id=session) if session != self._session:
                self._session = session
                return [Emit(SessionStarted(engine_session=session), line.byte_from, line.byte_to)]
            case Result():
                self._result = told
                steps = self._events.read(told, line)
                is_answer = not told.is_error and bool(told.result)
                return [*steps, *(self._events.answered(told.result or "", line) if is_answer else [])]
            case _:
                return self._events.read(told, line)

    def finished(self) -> list[Step]:
        return self._events.ended()

    def ended(self, exit_code: int | None) -> Outcome | None:
        result, usage = self._result, self._events.usage
        if result is None:
            return None
        if result.is_error or result.subtype != "success":
            return Outcome(AttemptOutcome.ERROR, code_of(result, self._events.error), reason_of(result), usage=usage)
        if not result.result:
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, "claude finished without an answer", usage=usage)
        return Outcome(AttemptOutcome.SUCCESS, result=result.result, usage=usage)


def resume_arguments(session: str, message: str, more: Sequence[str]) -> tuple[str, ...]:
    return ("--resume", session, "--print", "--output-format", "stream-json", "--verbose", *more, "--", message)
