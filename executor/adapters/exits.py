"""What a process's end means when the engine's own events did not say how it ended."""

from __future__ import annotations

import signal

from executor.adapters.base import Outcome
from shared.contracts.events import AttemptOutcome, Usage
from shared.errors import ErrorCode


def outcome_of_exit(exit_code: int | None, usage: Usage | None = None) -> Outcome:
    """An error for every exit: an engine that told nothing has not succeeded, whatever its status says."""
    if exit_code is None:
        return _failed(ErrorCode.ENGINE_START_FAILED, "the engine never started", usage)
    if exit_code == 0:
        return _failed(ErrorCode.ENGINE_NO_OUTPUT, "the engine ended without saying how", usage)
    if exit_code > 0:
        return _failed(ErrorCode.ENGINE_EXIT_NONZERO, f"the engine ended with exit status {exit_code}", usage)
    return _failed(ErrorCode.ENGINE_EXIT_NONZERO, f"the engine was ended by {_signal_name(-exit_code)}", usage)


def _failed(code: ErrorCode, message: str, usage: Usage | None) -> Outcome:
    return Outcome(AttemptOutcome.ERROR, code, message, usage=usage)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
