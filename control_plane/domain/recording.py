"""What happens to a run when news about it is written: pure, so that the rules of the log can be tested without a database.

``absorb`` takes what a writer knows of a run once it holds its row, and the news; it gives the rows to write. News that was
written before changes nothing: events are known by the attempt's executor cursor, signals by the status they lead to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from control_plane.domain.lifecycle import SIGNAL_OF_OUTCOME, Signal, advance
from shared.contracts.events import (
    AttemptEnded,
    AttemptLost,
    AttemptOutcome,
    InteractionResolved,
    Kind,
    Payload,
    RunStatusChanged,
)
from shared.contracts.runs import TERMINAL, Phase, RunStatus
from shared.errors import ERRORS, ErrorCode

MAX_ERROR_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class Locked:
    """A run as it stands under its row's lock; ``now`` is the database's clock."""

    run_id: str
    status: RunStatus
    last_cursor: int
    attempt: int
    executor_cursor: int
    now: datetime
    stop_reason: str | None = None
    has_lease: bool = False
    attempt_living: bool = False
    has_run_time: bool = False
    open_questions: frozenset[str] = frozenset()
    answered_by: dict[str, str | None] = field(default_factory=dict[str, str | None])
    interaction_ms: int = 86_400_000
    on_expiry: str = "fail"


# ---- news ----


class FromExecutor(msgspec.Struct, frozen=True):
    """One frame of an attempt's stream; ``data`` and ``raw_ref`` are its JSON, untouched."""

    executor_cursor: int
    attempt: int
    at: datetime
    kind: str
    data: str
    raw_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A signal of our own, with the event that tells of it and, where it ends the run, why."""

    signal: Signal
    error_code: ErrorCode | None = None
    error_message: str | None = None
    event: Payload | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Someone asked for the end; ``reason`` decides which end it will be."""

    reason: ErrorCode = ErrorCode.USER_CANCELED


@dataclass(frozen=True, slots=True)
class Note:
    """An event of our own that moves nothing."""

    event: Payload


News = FromExecutor | Move | Stop | Note


# ---- what is to be written ----


@dataclass(slots=True)
class NewEvent:
    cursor: int
    attempt: int
    kind: str
    at: datetime
    data: str
    raw_ref: str | None = None


@dataclass(frozen=True, slots=True)
class RawBytes:
    attempt: int
    stream: str
    byte_from: int
    base64: str


@dataclass(frozen=True, slots=True)
class Asked:
    question_id: str
    attempt: int
    request: str
    expires_at: datetime | None
    on_expiry: str


@dataclass(frozen=True, slots=True)
class Ending:
    error_code: ErrorCode | None
    error_message: str | None
    exit_code: int | None


@dataclass(slots=True)
class Change:
    """Everything one writer writes of one run in one transaction."""

    run_id: str
    status: RunStatus
    moved: bool = False
    last_cursor: int = 0
    executor_cursor: int = 0
    events: list[NewEvent] = field(default_factory=list[NewEvent])
    raw: list[RawBytes] = field(default_factory=list[RawBytes])
    asked: list[Asked] = field(default_factory=list[Asked])
    resolved: dict[str, str] = field(default_factory=dict[str, str])
    engine_session: str | None = None
    accepted: bool = False
    run_ms: int | None = None
    outcome: str | None = None
    stop_reason: ErrorCode | None = None
    ending: Ending | None = None
    parked: bool = False

    @property
    def ended(self) -> bool:
        return self.ending is not None


def absorb(run: Locked, news: Sequence[News]) -> Change:
    """The rows that make ``news`` true of ``run``. Nothing is written after the end."""
    return _Absorbing(run).all(news)


class _LogData(msgspec.Struct, rename="camel"):
    stream: str
    byte_from: int
    base64: str


_LOG = msgspec.json.Decoder(_LogData)


class _Absorbing:
    def __init__(self, run: Locked) -> None:
        self._run = run
        self._open = set(run.open_questions)
        self._stop_reason = run.stop_reason
        self._has_run_time = run.has_run_time
        self._change = Change(run.run_id, run.status, last_cursor=run.last_cursor, executor_cursor=run.executor_cursor)

    def all(self, news: Sequence[News]) -> Change:
        for each in news:
            if self._change.status in TERMINAL:
                break
            match each:
                case FromExecutor():
                    self._from_executor(each)
                case Move():
                    self._move(each)
                case Stop():
                    self._stop(each.reason)
                case Note():
                    self._note(each.event)
        return self._change

    # ---- the engine's events, numbered by the executor ----

    def _from_executor(self, event: FromExecutor) -> None:
        change = self._change
        if event.attempt != self._run.attempt or event.executor_cursor <= change.executor_cursor:
            return  # written before, or the echo of an older attempt
        change.executor_cursor = event.executor_cursor
        if event.kind == Kind.LOG:
            log = _LOG.decode(event.data)
            change.raw.append(RawBytes(event.attempt, log.stream, log.byte_from, log.base64))
            return
        reaction = _REACTIONS.get(event.kind)
        data = event.data if reaction is None else self._completed(event)
        self._append(event.kind, data, event.at, event.raw_ref)
        if reaction is not None:
            reaction(self, event, msgspec.json.decode(data))

    def _completed(self, event: FromExecutor) -> str:
        """What the executor cannot know: until when a question stays open, and who gave an answer."""
        data = msgspec.json.decode(event.data)
        if event.kind == Kind.INTERACTION_REQUESTED:
            expires = self._run.now + timedelta(milliseconds=self._run.interaction_ms)
            data = {**data, "expiresAt": expires.isoformat(), "onExpiry": self._run.on_expiry}
        elif event.kind == Kind.INTERACTION_RESOLVED and self._run.answered_by.get(data["questionId"]) is not None:
            data = {**data, "answeredBy": self._run.answered_by[data["questionId"]]}
        else:
            return event.data
        return msgspec.json.encode(data).decode()

    def _attempt_started(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        if not self._has_run_time:
            self._has_run_time = True
            self._change.run_ms = data["timeouts"]["runMs"]

    def _session_started(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        self._change.engine_session = data["engineSession"]

    def _asked(self, event: FromExecutor, data: dict[str, Any]) -> None:
        self._open.add(data["questionId"])
        self._change.asked.append(
            Asked(
                data["questionId"],
                event.attempt,
                msgspec.json.encode(data).decode(),
                datetime.fromisoformat(data["expiresAt"]),
                data["onExpiry"],
            )
        )
        self._signal(Signal.ASKED)

    def _resolved(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        self._open.discard(data["questionId"])
        self._change.resolved[data["questionId"]] = _RESOLVED[data["how"]]
        if not self._open and self._change.status is RunStatus.WAITING_USER:
            self._signal(Signal.ANSWERED)

    def _attempt_ended(self, event: FromExecutor, _data: dict[str, Any]) -> None:
        ended = AttemptEnded.model_validate_json(event.data)
        self._change.outcome = event.data
        if ended.outcome is AttemptOutcome.LOST:
            self._lost(ended.error_message)
            return
        self._signal(*_verdict(ended, self._stop_reason), ended)

    # ---- our own signals ----

    def _note(self, event: Payload) -> None:
        self._append(event.KIND, event.wire_json())
        if isinstance(event, InteractionResolved):
            self._open.discard(event.question_id)
            self._change.resolved[event.question_id] = _RESOLVED[event.how]

    def _move(self, move: Move) -> None:
        if move.event is not None:
            self._append(move.event.KIND, move.event.wire_json())
        if move.signal is Signal.ATTEMPT_LOST:
            assert isinstance(move.event, AttemptLost)
            if self._run.attempt_living:
                self._change.outcome = AttemptEnded(
                    outcome=AttemptOutcome.LOST, error_code=ErrorCode.EXECUTOR_LOST, error_message=move.event.reason
                ).wire_json()
            self._lost(move.event.reason)
            return
        if move.signal is Signal.ATTEMPT_ACCEPTED:
            self._change.accepted = True
        self._signal(move.signal, move.error_code, move.error_message)

    def _lost(self, reason: str | None) -> None:
        self._signal(Signal.ATTEMPT_LOST, ErrorCode.USER_CANCELED, reason)
        self._change.parked = self._change.status is RunStatus.WAITING_USER

    def _stop(self, reason: ErrorCode) -> None:
        if self._stop_reason is None:
            self._stop_reason = self._change.stop_reason = reason
        claimed = self._run.has_lease or self._run.attempt_living
        self._signal(Signal.STOP_REQUESTED if claimed else Signal.STOP_UNCLAIMED, ErrorCode(self._stop_reason))

    # ---- the one place where a status moves ----

    def _signal(
        self, signal: Signal, code: ErrorCode | None = None, message: str | None = None, ended: AttemptEnded | None = None
    ) -> None:
        change = self._change
        before, after = change.status, advance(change.status, signal)
        if after is before:
            return
        after, code = _true_end(after, self._stop_reason, code)
        change.status, change.moved = after, True
        if after in TERMINAL:
            for question_id in sorted(self._open):  # nobody waits for an answer any more
                self._note(InteractionResolved(question_id=question_id, how="withdrawn"))
            change.ending = Ending(code, _clean(message or _default_message(code)), ended.exit_code if ended else None)
            if self._run.attempt_living and change.outcome is None:
                change.outcome = _unheard(after, change.ending).wire_json()
        self._append(Kind.RUN_STATUS, _status_event(after, signal, change.ending, ended).wire_json())

    def _append(self, kind: str, data: str, at: datetime | None = None, raw_ref: str | None = None) -> None:
        self._change.last_cursor += 1
        self._change.events.append(
            NewEvent(self._change.last_cursor, self._run.attempt, str(kind), at or self._run.now, data, raw_ref)
        )


_REACTIONS = {
    Kind.ATTEMPT_STARTED.value: _Absorbing._attempt_started,  # pyright: ignore[reportPrivateUsage]
    Kind.SESSION_STARTED.value: _Absorbing._session_started,  # pyright: ignore[reportPrivateUsage]
    Kind.INTERACTION_REQUESTED.value: _Absorbing._asked,  # pyright: ignore[reportPrivateUsage]
    Kind.INTERACTION_RESOLVED.value: _Absorbing._resolved,  # pyright: ignore[reportPrivateUsage]
    Kind.ATTEMPT_ENDED.value: _Absorbing._attempt_ended,  # pyright: ignore[reportPrivateUsage]
}
_RESOLVED = {"answered": "delivered", "expired": "expired", "withdrawn": "withdrawn"}
_PHASES = {
    RunStatus.RUNNING: Phase.WORKING,
    RunStatus.WAITING_USER: Phase.WAITING_USER,
    RunStatus.STOPPING: Phase.STOPPING,
}


def _verdict(ended: AttemptEnded, stop_reason: str | None) -> tuple[Signal, ErrorCode | None, str | None]:
    """What an attempt's end means for its run. A process we ended for a reason of our own ends the run for that reason."""
    signal = SIGNAL_OF_OUTCOME[ended.outcome]
    if ended.outcome is AttemptOutcome.CANCELED:
        return signal, ErrorCode(stop_reason or ErrorCode.USER_CANCELED), ended.error_message
    if ended.outcome is AttemptOutcome.SUCCESS:
        return signal, None, None
    fallback = ErrorCode.TIMEOUT if ended.outcome is AttemptOutcome.TIMEOUT else ErrorCode.ENGINE_EXIT_NONZERO
    return signal, ended.error_code or fallback, ended.error_message


# A canceled end that nobody canceled: the stop was ours.
_ENDS_OF_OUR_STOPS = {ErrorCode.TIMEOUT: RunStatus.TIMEOUT, ErrorCode.INTERACTION_EXPIRED: RunStatus.ERROR}


def _true_end(status: RunStatus, stop_reason: str | None, code: ErrorCode | None) -> tuple[RunStatus, ErrorCode | None]:
    if status is not RunStatus.CANCELED:
        return status, code
    reason = ErrorCode(stop_reason) if stop_reason is not None else code or ErrorCode.USER_CANCELED
    return _ENDS_OF_OUR_STOPS.get(reason, RunStatus.CANCELED), reason


def _default_message(code: ErrorCode | None) -> str | None:
    return ERRORS[code].title if code is not None else None


def _clean(text: str | None) -> str | None:
    """Postgres keeps no NUL in text, and a message is a line for people, not a log."""
    return text.replace("\0", "")[:MAX_ERROR_MESSAGE] if text is not None else None


def _status_event(status: RunStatus, signal: Signal, ending: Ending | None, ended: AttemptEnded | None) -> RunStatusChanged:
    code = ending.error_code if ending else None
    return RunStatusChanged(
        status=status,
        phase=_PHASES.get(status),
        reason=signal,
        detail=_detail(status, ending),
        error_code=code,
        error_message=ending.error_message if ending else None,
        retryable=ERRORS[code].retryable if code else None,
        hint=ERRORS[code].hint if code else None,
        exit_code=ending.exit_code if ending else None,
        usage=ended.usage if ended else None,
        result=ended.result if ended and status is RunStatus.SUCCESS else None,
    )


def _unheard(status: RunStatus, ending: Ending) -> AttemptEnded:
    """The end of an attempt whose executor did not tell it: the run ended over its head."""
    return AttemptEnded(outcome=AttemptOutcome(status.value), error_code=ending.error_code, error_message=ending.error_message)


def _detail(status: RunStatus, ending: Ending | None) -> str | None:
    if ending is None:
        return None
    if ending.error_code is None or status is RunStatus.CANCELED:
        return status.value
    return f"{status.value}: {ending.error_message or ending.error_code}"
