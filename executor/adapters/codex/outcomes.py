"""How a process of Codex ended that finished a turn: as its last turn did. Decides nothing without one."""

from __future__ import annotations

from executor.adapters.asked_waits import asked_wait
from executor.adapters.base import Outcome
from executor.adapters.codex.errors import code_of, reason_of
from executor.adapters.codex.protocol import Turn, TurnError
from shared.contracts.events import AttemptOutcome, Usage
from shared.errors import ErrorCode


def outcome_of_turn(turn: Turn, answer: str | None, usage: Usage | None) -> Outcome:
    """``answer``: its last whole message; a turn that completed without any has failed all the same."""
    match turn.status:
        case "completed" if answer is None:
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, "codex finished without an answer", usage=usage)
        case "completed":
            return Outcome(AttemptOutcome.SUCCESS, result=answer, usage=usage)
        case "failed":
            error = turn.error or TurnError("the turn failed without a reason")
            code, reason = code_of(error), reason_of(error)
            asked = asked_wait(code, reason)
            return Outcome(AttemptOutcome.ERROR, code, reason, usage=usage, retry_after_ms=asked)
        case _:
            return interrupted(usage)


def interrupted(usage: Usage | None) -> Outcome:
    return Outcome(AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED, "the turn was interrupted", usage=usage)
