"""What happens to a run when news about it is written: pure, so that the rules of the log can be tested without a database.

``absorb`` takes what a writer knows of a run once it holds its row, and the news; it gives the rows to write. News that was
written before changes nothing: events are known by the attempt's executor cursor, signals by the status they lead to,
questions by whether they are still open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from control_plane.domain.breaker import BREAKING
from control_plane.domain.endings import (
    Ending,
    clean,
    default_message,
    failed_to_start,
    in_truth,
    scheduled,
    status_event,
    unheard,
    verdict,
)
from control_plane.domain.lifecycle import SIGNAL_OF_OUTCOME, Signal, advance
from control_plane.domain.messages import RUN_OVER, MessagesSettled, told
from control_plane.domain.news import FromExecutor, Hold, Locked, Move, News, Settle, Stop, Told
from control_plane.domain.questions import Asked
from control_plane.domain.retrying import SILENT_CURSOR, Again, Failure, again, last_word
from control_plane.domain.standing import Kept
from shared.contracts.events import AttemptEnded, AttemptLost, AttemptOutcome, Diagnostic, InteractionResolved, Kind
from shared.contracts.interactions import InteractionType
from shared.contracts.runs import TERMINAL, RunStatus
from shared.errors import ErrorCode

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
    messages: dict[str, str] = field(default_factory=dict[str, str])
    engine_session: str | None = None
    snapshot: Kept | None = None
    accepted: bool = False
    run_ms: int | None = None
    outcome: str | None = None
    stop_reason: ErrorCode | None = None
    stop_detail: str | None = None
    ending: Ending | None = None
    parked: bool = False
    attempt_over: bool = False
    acted: bool = False  # for the first time
    was_answered: bool = False  # the model took what it was asked with: it has called a tool, asked a person, or finished
    hold_seconds: float | None = None  # let go, for so long
    again: Again | None = None
    blamed: Failure | None = None  # what the model refused, where a breaker counts it

    @property
    def ended(self) -> bool:
        return self.ending is not None

    @property
    def waits(self) -> bool:
        """Another attempt follows after a while: until then nobody is to drive the run."""
        return self.again is not None and self.again.delay_ms > 0

    @property
    def lets_go(self) -> bool:
        """The lease went with this write: nobody is to drive the run now."""
        return self.ended or self.parked or self.waits or self.hold_seconds is not None


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
        self._stop_detail = run.stop_detail
        self._change = Change(run.run_id, run.status, last_cursor=run.last_cursor, executor_cursor=run.executor_cursor)

    @property
    def _attempt_living(self) -> bool:
        return self._run.attempt_living and self._change.outcome is None

    def all(self, news: Sequence[News]) -> Change:
        for each in news:
            if self._change.status in TERMINAL:
                break
            self._take(each)
        self._change.attempt_over = not self._attempt_living
        self._change.was_answered |= self._change.status is RunStatus.SUCCESS
        return self._change

    def _take(self, news: News) -> None:
        match news:
            case FromExecutor():
                self._from_executor(news)
            case Move():
                self._move(news)
            case Stop():
                self._stop(news)
            case Hold():
                self._hold(news)
            case Settle():
                self._settle(news)
            case Told():
                self._told(news.answers)
            case MessagesSettled():
                self._messages_settled(news)

    # ---- the engine's events, numbered by the executor ----

    def _from_executor(self, event: FromExecutor) -> None:
        change = self._change
        if event.attempt != self._run.attempt or event.executor_cursor <= change.executor_cursor or not self._attempt_living:
            return  # written before, or the echo of an attempt that is over
        change.executor_cursor = event.executor_cursor
        if event.kind == Kind.LOG:
            log = _LOG.decode(event.data)
            change.raw.append(RawBytes(event.attempt, log.stream, log.byte_from, log.base64))
            return
        if event.kind == Kind.SNAPSHOT:
            change.snapshot = Kept.told_by(event, change.last_cursor)
            return
        if event.kind in _OURS or self._is_settled(event):
            return
        self._tell_of_late_reply(event)
        if event.kind in _ACTS:
            change.acted = change.acted or not self._run.tried.acted
            change.was_answered = change.acted or self._run.is_trying
        reaction = _REACTIONS.get(event.kind)
        data = event.data if reaction is None else self._completed(event)
        self._append(event.kind, data, event.at, event.raw_ref)
        if reaction is not None:
            reaction(self, event, msgspec.json.decode(data))

    def _tell_of_late_reply(self, event: FromExecutor) -> None:
        """The engine withdrew a question before the answer came that we had accepted."""
        if event.kind == Kind.INTERACTION_RESOLVED and (told := msgspec.json.decode(event.data))["how"] == "withdrawn":
            self._undeliverable(told["questionId"], "its engine had withdrawn it")

    def _is_settled(self, event: FromExecutor) -> bool:
        """Whether it tells the end of a question that we have ended already."""
        return event.kind == Kind.INTERACTION_RESOLVED and msgspec.json.decode(event.data)["questionId"] not in self._open

    def _completed(self, event: FromExecutor) -> str:
        """What the executor cannot know: until when a question stays open, and who gave an answer."""
        data = msgspec.json.decode(event.data)
        if event.kind == Kind.INTERACTION_REQUESTED:
            expires = self._run.now + timedelta(milliseconds=self._run.interaction_ms)
            data = {**data, "expiresAt": expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "onExpiry": self._run.on_expiry}
            if self._run.expiry_answer is not None and data["type"] == InteractionType.QUESTION:
                data["expiryAnswer"] = self._run.expiry_answer
        elif event.kind == Kind.INTERACTION_RESOLVED and self._run.answered_by.get(data["questionId"]) is not None:
            data = {**data, "answeredBy": self._run.answered_by[data["questionId"]]}
        else:
            return event.data
        return msgspec.json.encode(data).decode()

    def _attempt_started(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        self._change.run_ms = data["timeouts"]["runMs"]

    def _session_started(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        self._change.engine_session = data["engineSession"]

    def _asked(self, event: FromExecutor, data: dict[str, Any]) -> None:
        self._open.add(data["questionId"])
        self._change.asked.append(Asked.told_by(event.attempt, data))
        self._signal(Signal.ASKED)

    def _resolved(self, _event: FromExecutor, data: dict[str, Any]) -> None:
        self._open.discard(data["questionId"])
        self._change.resolved[data["questionId"]] = _RESOLVED[data["how"]]
        self._go_on()

    def _attempt_ended(self, event: FromExecutor, data: dict[str, Any]) -> None:
        if data.get("errorCode") not in _CODES:
            data = {**data, "errorCode": ErrorCode.INTERNAL}  # a newer executor's word
        ended = AttemptEnded.model_validate(data)
        self._change.outcome = event.data
        if ended.outcome in (AttemptOutcome.LOST, AttemptOutcome.PARKED):
            self._gone(SIGNAL_OF_OUTCOME[ended.outcome], ended.error_message)
            return
        signal, code, message = verdict(ended, self._stop_reason)
        if code is None or ended.outcome is AttemptOutcome.CANCELED:
            self._signal(signal, code, message, ended)
        else:
            failure = Failure(code, message, asks_ms=ended.retry_after_ms)
            self._change.blamed = failure if code in BREAKING else None
            self._failed(signal, failure, ended)

    # ---- our own signals ----

    def _hold(self, hold: Hold) -> None:
        is_to_wait = self._stop_reason is None
        if is_to_wait and not self._run.held:
            self._append(hold.why.KIND, hold.why.wire_json())
        self._change.hold_seconds = hold.seconds if is_to_wait else 0

    def _resolve(self, event: InteractionResolved) -> None:
        self._append(event.KIND, event.wire_json())
        self._open.discard(event.question_id)
        self._change.resolved[event.question_id] = _RESOLVED[event.how]

    def _withdraw(self, question_id: str, why: str) -> None:
        self._undeliverable(question_id, why)
        self._resolve(InteractionResolved(question_id=question_id, how="withdrawn"))

    def _undeliverable(self, question_id: str, why: str) -> None:
        """An answer that we had accepted reaches nobody, and its readers learn it."""
        if question_id in self._run.answered:
            self._append(Kind.DIAGNOSTIC, Diagnostic(code="reply_undeliverable", message=f"{question_id}: {why}").wire_json())

    def _settle(self, settle: Settle) -> None:
        question_id = settle.event.question_id
        if question_id not in self._open or (settle.pending and question_id in self._run.answered):
            return
        if settle.why is not None:
            self._append(settle.why.KIND, settle.why.wire_json())
        self._resolve(settle.event)
        if settle.stop is not None:
            self._stop(Stop(settle.stop))
        else:
            self._go_on()

    def _told(self, answers: Sequence[InteractionResolved]) -> None:
        for answer in answers:
            self._settle(Settle(answer))
        for question_id in sorted(self._open):
            self._withdraw(question_id, "its engine had ended")
        self._go_on()

    def _messages_settled(self, settled: MessagesSettled) -> None:
        if settled.attempt != self._run.attempt:
            return
        for message_id in settled.message_ids:
            if message_id in self._run.messages and message_id not in self._change.messages:
                event = told(message_id, settled.why)
                self._append(event.KIND, event.wire_json())
                self._change.messages[message_id] = settled.status

    def _go_on(self) -> None:
        if not self._open and self._change.status is RunStatus.WAITING_USER:
            self._signal(Signal.ANSWERED)

    def _move(self, move: Move) -> None:
        if move.signal is Signal.ATTEMPT_LOST and not self._attempt_living:
            return  # written before
        if move.event is not None:
            self._append(move.event.KIND, move.event.wire_json())
        if move.signal is Signal.ATTEMPT_LOST:
            assert isinstance(move.event, AttemptLost)
            self._change.outcome = AttemptEnded(
                outcome=AttemptOutcome.LOST, error_code=ErrorCode.EXECUTOR_LOST, error_message=move.event.reason
            ).wire_json()
            self._gone(move.signal, move.event.reason, move.never_began)
            return
        if move.signal is Signal.ATTEMPT_ACCEPTED:
            self._change.accepted = True
        if move.signal is Signal.START_REFUSED and move.error_code is not None:
            self._failed(move.signal, Failure(move.error_code, move.error_message))
        else:
            self._signal(move.signal, move.error_code, move.error_message)

    def _gone(self, signal: Signal, reason: str | None, never_began: bool = False) -> None:
        """Lost or parked. A run that waits for a person rests until the reply wakes it; a reply that is here already would
        never wake it."""
        change = self._change
        self._signal(signal, ErrorCode.USER_CANCELED, reason)
        if change.status is RunStatus.WAITING_USER:
            change.parked = bool(self._open) and not self._open & self._run.answered
        elif change.status not in TERMINAL:
            silent = change.executor_cursor <= SILENT_CURSOR and not (self._run.has_session or change.engine_session)
            failure = Failure(ErrorCode.EXECUTOR_LOST, reason, unheard=not silent, never_began=never_began)
            self._failed(Signal.GIVEN_UP, failure)

    def _failed(self, signal: Signal, failure: Failure, ended: AttemptEnded | None = None) -> None:
        """The attempt is over, and did not do what it was to do: another one follows, or the run ends by ``signal``."""
        run, change = self._run, self._change
        left_ms = change.run_ms if run.tried.active_ms_left is None else run.tried.active_ms_left
        tried = replace(run.tried, acted=run.tried.acted or change.acted, active_ms_left=left_ms)
        wanted = self._stop_reason is None and change.status is not RunStatus.STOPPING
        following = again(failure, tried, run.policy, run.chance) if wanted else None
        if following is None:
            self._signal(signal, *last_word(failure, tried, run.policy), ended)
            return
        if change.outcome is None:
            change.outcome = failed_to_start(failure.code, failure.message).wire_json()
        for question_id in sorted(self._open - run.answered):  # its engine is gone; the next one asks again
            self._resolve(InteractionResolved(question_id=question_id, how="withdrawn"))
        self._signal(Signal.RETRY_SCHEDULED)
        change.again = following
        event = scheduled(failure, following, run.attempt + 1, run.now)
        self._append(event.KIND, event.wire_json())

    def _stop(self, stop: Stop) -> None:
        if stop.seen not in (None, (self._change.status, self._run.attempt)):
            return
        if self._stop_reason is None:
            self._stop_reason = self._change.stop_reason = stop.reason
            self._stop_detail = self._change.stop_detail = stop.detail
        claimed = self._run.has_lease or self._run.attempt_living
        self._signal(Signal.STOP_REQUESTED if claimed else Signal.STOP_UNCLAIMED, ErrorCode(self._stop_reason))

    # ---- the one place where a status moves ----

    def _signal(
        self, signal: Signal, code: ErrorCode | None = None, message: str | None = None, ended: AttemptEnded | None = None
    ) -> None:
        change = self._change
        signal, code = in_truth(change.status, signal, self._stop_reason, code)
        before, after = change.status, advance(change.status, signal)
        if after is before:
            return
        change.status, change.moved = after, True
        if after in TERMINAL:
            for question_id in sorted(self._open):  # nobody waits for an answer any more
                self._withdraw(question_id, RUN_OVER)
            self._messages_settled(MessagesSettled(self._run.attempt, self._run.messages, RUN_OVER))
            if self._stop_detail is not None and (after is RunStatus.CANCELED or signal is Signal.OVERDUE):
                message = self._stop_detail
            change.ending = Ending(code, clean(message or default_message(code)), ended.exit_code if ended else None)
            if self._run.attempt_living and change.outcome is None:
                change.outcome = unheard(after, change.ending).wire_json()
        self._append(Kind.RUN_STATUS, status_event(after, signal, change.ending, ended).wire_json())

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
# What another attempt would do twice, or ask twice.
_ACTS = frozenset({Kind.TOOL_STARTED, Kind.TOOL_COMPLETED, Kind.ARTIFACT_CREATED, Kind.INTERACTION_REQUESTED})
_RESOLVED = {"answered": "delivered", "expired": "expired", "withdrawn": "withdrawn"}
_OURS = frozenset({Kind.RUN_STATUS, Kind.ATTEMPT_LOST, Kind.STREAM_GAP})  # no executor says these
_CODES = frozenset({None, *ErrorCode})
