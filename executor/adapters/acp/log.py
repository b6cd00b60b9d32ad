"""What an ACP engine's own log tells of its calls of the model: that one is made again, why, and when that is enough.

It reads lines and counts. What becomes of them its conversation decides; which lines they are stands in the engine's row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from executor.adapters.acp import errors
from executor.adapters.acp.profile import AcpProfile, LogLine
from executor.adapters.acp.protocol import RpcError
from shared.errors import ErrorCode

MAX_READ_CHARS = 4096  # of a line: what it tells stands at its beginning
LONGEST_WAIT_MS = 30_000  # that an engine may sleep before it calls again, because the model asked for it


@dataclass(frozen=True, slots=True)
class Retry:
    """The model is called again. ``starts_over``: what comes may have been said before. ``is_enough``: it should not be."""

    reason: str
    code: ErrorCode
    attempt: int
    starts_over: bool = False
    is_enough: bool = False
    asked_ms: int | None = None  # for so long the model wants to be left alone first


class CallLog:
    """The log of one process."""

    def __init__(self, profile: AcpProfile) -> None:
        self._profile = profile
        self._calls = 0
        self._last_failure = ""
        self._has_heard = False
        self.asks_ms: int | None = None  # what the model asked for with the newest failure

    def begin(self) -> None:
        """A prompt goes out."""
        self._calls = 0
        self.asks_ms = None
        self._has_heard = False

    def heard(self) -> None:
        """The model said something in the session."""
        self.asks_ms = None
        self._has_heard = True

    def read(self, text: str) -> Sequence[Retry] | None:
        """The retry a line tells, if it tells one. None: this is no line of its log."""
        begun = text[:MAX_READ_CHARS]
        for pattern, means in self._profile.log:
            found = pattern.search(begun)
            if found is not None:
                return self._on(means, found)
        return None

    def _on(self, means: LogLine, found: re.Match[str]) -> Sequence[Retry]:
        match means:
            case LogLine.NOISE:
                return ()
            case LogLine.STEP:
                self._calls = 0
                return ()
            case LogLine.FAILED:
                self._last_failure = found[1]
                return (self._retry(self._calls, is_enough=True),) if self._calls >= self._profile.max_calls else ()
            case LogLine.CALL:
                self._calls += 1
                is_enough = self._calls > self._profile.max_calls
                return (self._retry(self._calls - 1, starts_over=True, is_enough=is_enough),) if self._calls > 1 else ()
            case LogLine.AGAIN:
                return (self._again(found),)
            case LogLine.BROKEN:
                self._last_failure = found["reason"]
                attempt = int(found["attempt"])
                return (self._retry(attempt, starts_over=True, is_enough=attempt >= self._profile.max_calls),)

    def _again(self, found: re.Match[str]) -> Retry:
        """A call of the session's own says nothing before it succeeds: where something was heard since the first try, this
        line is of another one, which the engine makes for itself, and that one may fail."""
        attempt = int(found["attempt"])
        if attempt == 1:
            self._has_heard = False
        self.asks_ms = int(found["wait"]) if found["wait"] else None
        is_enough = attempt >= self._profile.max_calls or (self.asks_ms or 0) > LONGEST_WAIT_MS
        return replace(self._retry(attempt, is_enough=is_enough and not self._has_heard), asked_ms=self.asks_ms)

    def _retry(self, attempt: int, *, starts_over: bool = False, is_enough: bool = False) -> Retry:
        """What cannot pass is not tried again, so what nothing names is the endpoint's."""
        error = RpcError(message=self._last_failure or "the model's answer broke off")
        code = self._profile.error_code(error)
        code = ErrorCode.MODEL_UNAVAILABLE if code is ErrorCode.ENGINE_EXIT_NONZERO else code
        return Retry(errors.reason_of(error), code, attempt, starts_over, is_enough)
