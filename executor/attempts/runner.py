"""Joins one conversation with one process: bytes to the one, steps to the other, events to the log, and one true end.

``attempt.started`` is the first event, ``attempt.ended`` the last, written once and only when the process tree is proven gone.
Nothing here knows an engine. Everything but ``run`` is synchronous and called on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import structlog

from executor.adapters.base import STDERR, STDOUT, Call, CloseInput, Emit, Outcome, Send, Step, Stream, call_stream
from executor.adapters.capping import MAX_REASON_BYTES, capped
from executor.attempts.endings import ENDINGS, Cause, decided, passed_limit, passed_quota
from executor.attempts.engine_calls import EngineCalls
from executor.attempts.limits import Limits
from executor.attempts.plan import Plan
from executor.attempts.questions import DECLINED, UNREADABLE, Questions, answer_of
from executor.events.event_log import EventLog, RawSpan
from executor.events.journal import Journal
from executor.events.payloads import is_readable, speakable
from executor.events.redaction import Redactor, SpokenText
from executor.processes.engine_process import EngineProcess, InputFullError
from executor.processes.process_tree import Forest, Tree
from shared.clock import Clock
from shared.contracts.events import (
    AttemptEnded,
    AttemptOutcome,
    Diagnostic,
    InteractionRequested,
    InteractionResolved,
    Payload,
    SessionStarted,
)
from shared.contracts.interactions import Reply
from shared.errors import ErrorCode, RunyardError

INTERRUPT_SECONDS = 2.0
EXIT_SECONDS = 0.5
LEFTOVER_GRACE_SECONDS = 0.5
CHECK_SECONDS = 1.0
STDERR_TAIL_BYTES = 4096

log = structlog.get_logger("runner")
Status = Literal["starting", "running", "stopping", "ended"]


class Runner:
    """One attempt. ``run`` to its end, once; ``end`` asks for it earlier."""

    def __init__(self, plan: Plan, journal: Journal, forest: Forest, now: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._plan = plan
        self._conversation = plan.conversation
        self._forest = forest
        self._journal = journal
        self._log = EventLog(journal, now, lambda error: self.end(Cause.DISK_FULL, str(error)))
        self.tail = self._log.tail
        self._limits = Limits(plan.started.timeouts, self._loop.time)
        self.questions = Questions()
        self._redactors = {STDOUT: Redactor(plan.secrets), STDERR: Redactor(plan.secrets)}
        self._spoken = SpokenText(plan.secrets)
        self._calls = EngineCalls(self._on_answer)
        self._process: EngineProcess | None = None
        self._tree: Tree | None = None
        self.cause: Cause | None = None
        self._detail = ""
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._input_closed_at: float | None = None
        self._adapter_failed = False
        self._output_bytes = 0
        self._stderr_tail = bytearray()
        self._message_ids: set[str] = set()
        self.on_rest: Callable[[], Awaitable[Payload | None]] | None = None  # between the tree's end and the attempt's
        self.status: Status = "starting"
        self.engine_session: str | None = None
        self.ended: AttemptEnded | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.status != "ended" else None

    @property
    def is_hurried(self) -> bool:
        """Its tree is being ended without any more grace."""
        return self._hurry.is_set()

    # ---- what others ask of it ----

    def end(self, cause: Cause, detail: str = "") -> None:
        """Ask for the end; the first cause stands, a more urgent one only shortens the grace."""
        if self.status == "ended":
            return
        if self.cause is None:
            self.cause, self._detail, self.status = cause, detail, "stopping"
        if ENDINGS[cause].longest_grace == 0:
            self._hurry.set()
        self._changed.set()

    def hurry(self) -> None:
        """No more grace."""
        self._hurry.set()
        self._changed.set()

    def reply(self, question_id: str, reply: Reply) -> bool:
        """True: this very reply had been taken before. Raises ``conflict`` when the question is not open, ``invalid_request``."""
        answer = answer_of(reply)
        if self.questions.is_repeat(question_id, answer):
            return True
        self._must_be_running()
        self._ask(lambda: self._conversation.answer(question_id, reply), may_refuse=True)
        if self._adapter_failed:
            raise RunyardError(ErrorCode.INTERNAL, "the adapter failed")
        self.questions.answered(question_id, answer)
        self._emit(Emit(InteractionResolved(question_id=question_id, how="answered", answer=answer)), None)
        self._log.commit()
        return False

    def message(self, message_id: str, text: str) -> bool:
        """True: it had been taken before. Raises ``capability_unavailable`` or ``conflict``."""
        if message_id in self._message_ids:
            return True
        self._must_be_running()
        self._ask(lambda: self._conversation.message(text), may_refuse=True)
        self._message_ids.add(message_id)
        self._log.commit()
        return False

    def _must_be_running(self) -> None:
        if self.status != "running" or self._process is None or self._process.exit_code is not None:
            raise RunyardError(ErrorCode.CONFLICT, f"the attempt is {self.status}")

    # ---- its life ----

    async def run(self) -> None:
        """Until the tree is gone and ``attempt.ended`` is written."""
        self._log.emit(self._plan.started)
        self._log.commit()
        if self.cause is None:
            await self._start()
        if self._process is not None and self._tree is not None:
            await self._watch(self._process)
            self._limits.pause()
            await self._take_down(self._process, self._tree)
        self._hear_out()
        await self._keep_what_is_left()
        await self._finish()

    async def bury(self) -> None:
        """After a failure of ``run`` itself: end what it started and say so; nothing that may have failed is asked again."""
        self.end(Cause.ADAPTER_FAILED, "the runner failed")
        if self._process is not None and self._tree is not None:
            self.hurry()
            await self._take_down(self._process, self._tree)
        self._end_with(self._ending_in(Outcome(AttemptOutcome.ERROR, ErrorCode.INTERNAL, "the runner failed")))

    async def _start(self) -> None:
        command = self._conversation.command
        try:
            self._process, self._tree = await self._forest.plant(self._plan.launch, self, self._plan.run_mark)
        except (OSError, ValueError) as error:
            self.end(Cause.NOT_STARTED, f"the engine did not start: {getattr(error, 'strerror', None) or error}")
            return
        self._limits = Limits(self._plan.started.timeouts, self._loop.time)
        if self.cause is None:
            self.status = "running"
        if command.stdin is not None:
            self._process.send(command.stdin)
            self._process.close_input()
        self._ask(self._conversation.opened)
        self._log.commit()

    async def _watch(self, process: EngineProcess) -> None:
        """Until it exits, or has had its time to exit, or something ends it."""
        while process.exit_code is None and self.cause is None:
            if self._input_closed_at is not None and self._close_grace_left() <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(self._next_check()):
                    await self._changed.wait()
            except TimeoutError:
                self._check_limits(process)

    def _next_check(self) -> float:
        if self._input_closed_at is not None:
            return max(self._close_grace_left(), 0)
        return self._limits.next_check(CHECK_SECONDS)

    def _close_grace_left(self) -> float:
        return (self._input_closed_at or 0.0) + self._grace_seconds() - self._loop.time()

    def _grace_seconds(self) -> float:
        return self._plan.started.timeouts.stop_grace_ms / 1000

    def _check_limits(self, process: EngineProcess) -> None:
        if self._input_closed_at is not None:
            return
        unread = process.is_paused or process.has_waiting_output()
        limit = self._limits.passed(unread=unread, stuck_seconds=process.input_stuck_seconds())
        if limit is not None:
            self.end(*passed_limit(limit, self._plan.started.timeouts, self._output_bytes, self._log.last_kind))

    async def _take_down(self, process: EngineProcess, tree: Tree) -> None:
        """The stop ladder, whose last rung is the proof that nothing is left; then what the pipes still hold."""
        ending = ENDINGS[self.cause] if self.cause is not None else None
        if ending is not None and ending.asks_first:
            await self._interrupt(process)
        await self._calls.close()
        if ending is None and process.exit_code is not None:
            await process.drain(self._hurry.is_set)
        grace = self._grace_seconds() if process.exit_code is None else LEFTOVER_GRACE_SECONDS
        grace = min(grace, ending.longest_grace if ending else LEFTOVER_GRACE_SECONDS)
        await self._forest.end_surely(tree, grace, self._hurry)
        await self._until(lambda: process.exit_code is not None, EXIT_SECONDS)
        await process.read_out()
        process.close()
        self._forest.forget(tree)

    async def _interrupt(self, process: EngineProcess) -> None:
        if self._ask(self._conversation.interrupt):
            self._log.commit()
            bound = min(INTERRUPT_SECONDS, self._grace_seconds())
            await self._until(lambda: process.exit_code is not None or self._hurry.is_set(), bound)

    async def _until(self, is_so: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()

    async def _keep_what_is_left(self) -> None:
        """Nothing writes any more, and all it said is told: what is kept now is as new as the last event.

        Of an attempt that told nothing but its start, nothing is kept: it counts as one that did nothing.
        """
        if self.on_rest is not None and self._journal.count > 1 and self.cause is not Cause.SUPERSEDED:
            kept = await self.on_rest()
            if kept is not None:
                self._log.emit(kept)

    def _hear_out(self) -> None:
        """What streams and conversation still hold, once nothing more can come."""
        for stream, redactor in self._redactors.items():
            self._take(stream, redactor.rest())
            self._ask(lambda stream=stream: self._conversation.end_of(stream), stream)
        for payload in self._spoken.rest():
            self._log.emit(payload)
        self._log.commit()

    async def _finish(self) -> None:
        reached = await self._engine_outcome()
        outcome = decided(self.cause, self._detail, reached)
        for question_id in self.questions.to_withdraw(outcome.outcome):
            self._emit(Emit(InteractionResolved(question_id=question_id, how="withdrawn")), None)
        self._end_with(speakable(self._ending_in(outcome, self._spoken.clean_value(outcome.result))))

    def _ending_in(self, outcome: Outcome, result: object = None) -> AttemptEnded:
        return AttemptEnded(
            outcome=outcome.outcome,
            error_code=outcome.error_code,
            error_message=outcome.error_message and capped(self._spoken.clean(outcome.error_message), MAX_REASON_BYTES)[0],
            exit_code=self._process.exit_code if self._process is not None else None,
            usage=outcome.usage,
            result=result,
            stderr_tail=self._stderr_tail.decode(errors="replace") or None,
            retry_after_ms=outcome.retry_after_ms,
            active_ms=int(self._limits.active_seconds() * 1000),
        )

    def _end_with(self, ended: AttemptEnded) -> None:
        self.ended, self.status = ended, "ended"
        self._log.end(ended)

    async def _engine_outcome(self) -> Outcome:
        if not self._adapter_failed:
            try:
                exit_code = self._process.exit_code if self._process is not None else None
                return await self._plan.fit(self._conversation.ended(exit_code), self._hurry)
            except Exception as error:  # noqa: BLE001  the border to an adapter: its failure ends its attempt and nothing else
                self._blame_adapter(error)
        return Outcome(AttemptOutcome.ERROR, ErrorCode.INTERNAL, "the adapter failed")

    # ---- from the process ----

    def on_change(self) -> None:
        self._changed.set()

    def on_bytes(self, stream: Stream, chunk: bytes) -> None:
        self._limits.heard()
        self._output_bytes += len(chunk)
        too_much = passed_quota(self._plan.output_quota_bytes, self._output_bytes, self._journal.size)
        if too_much is not None and self._process is not None:
            self._process.pause()
            self.end(Cause.OUTPUT_LIMIT, too_much)
            return
        self._take(stream, self._redactors[stream].feed(chunk))
        self._log.commit()

    def _on_answer(self, call_id: str, answer: bytes) -> None:
        """No raw output: it is not the engine's own stream, and nothing points into it."""
        self._limits.heard()
        stream, redactor = call_stream(call_id), Redactor(self._plan.secrets)
        answer = redactor.feed(answer) + redactor.rest()
        self._ask(lambda: [*self._conversation.feed(stream, answer), *self._conversation.end_of(stream)])
        self._log.commit()

    def _take(self, stream: Stream, data: bytes) -> None:
        if not data:
            return
        self._log.raw(stream, data)
        if stream == STDERR:
            self._stderr_tail += data
            del self._stderr_tail[:-STDERR_TAIL_BYTES]
        self._ask(lambda: self._conversation.feed(stream, data), stream)

    # ---- from the conversation ----

    def _ask(self, call: Callable[[], list[Step]], stream: Stream | None = None, *, may_refuse: bool = False) -> bool:
        """Whether the conversation wanted anything. With ``may_refuse`` its ``RunyardError`` is the caller's answer."""
        if self._adapter_failed:
            return False
        try:
            steps = call()
            for step in steps:
                self._carry_out(step, stream)
            return bool(steps)
        except InputFullError:
            self.end(Cause.INPUT_STUCK)
        except (RecursionError, OverflowError):  # a nest or a number of the engine's, and no fault of its adapter
            self.end(Cause.UNREADABLE)
        except Exception as error:
            if may_refuse and isinstance(error, RunyardError):
                raise
            self._blame_adapter(error)
        return False

    def _carry_out(self, step: Step, stream: Stream | None) -> None:
        match step:
            case Emit():
                self._emit(step, stream)
            case Send() if self._process is not None:
                self._process.send(step.data)
            case CloseInput() if self._process is not None:
                self._process.close_input()
                self._input_closed_at = self._loop.time()
                self._changed.set()
            case Call() if self._process is not None:
                self._calls.make(step, self._process)
            case _:
                pass

    def _emit(self, step: Emit, stream: Stream | None) -> None:
        match step.payload:
            case InteractionRequested() as asked:
                if not self._open(asked):
                    return
            case InteractionResolved(question_id=question_id):
                if not self.questions.close(question_id):
                    return
                if not self.questions.open:
                    self._limits.resume()
            case SessionStarted(engine_session=session):
                self.engine_session = session
            case _:
                pass
        self._limits.told(step.payload.KIND)
        for payload in self._spoken.told(step.payload):
            self._log.emit(payload, _span(step, stream))

    def _open(self, asked: InteractionRequested) -> bool:
        """Whether it is told. Where nobody could read it nobody is waited for: it is declined."""
        if is_readable(asked):
            if is_new := self.questions.ask(asked.question_id, asked.type):
                self._limits.pause()
            return is_new
        self._log.emit(Diagnostic(code="question_declined", severity="warning", message=UNREADABLE))
        with suppress(RunyardError):  # the engine may have withdrawn it since
            self._ask(lambda: self._conversation.answer(asked.question_id, DECLINED), may_refuse=True)
        return False

    def _blame_adapter(self, error: Exception) -> None:
        log.error("adapter.failed", run=self._plan.run_mark, error=type(error).__name__, exc_info=error)
        self._adapter_failed = True
        self._log.emit(Diagnostic(code="adapter_failed", severity="error", message=f"the adapter failed: {type(error).__name__}"))
        self.end(Cause.ADAPTER_FAILED)


def _span(step: Emit, stream: Stream | None) -> RawSpan | None:
    if stream is None or step.byte_from is None or step.byte_to is None:
        return None
    return RawSpan(stream, step.byte_from, step.byte_to)
