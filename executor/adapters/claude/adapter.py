"""Claude Code over its stream-json control protocol: one process, one session, a turn and whatever is said into it.

The handshake is initialize → the prompt; the end is the result of the last turn → stdin closed. A message of ours may join the
running turn or begin another one: the engine echoes each as it takes it, so the work is over at a result with none left to take.
Every request of the engine is answered.
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec

from executor.adapters.asked_waits import asked_wait
from executor.adapters.base import STDOUT, CloseInput, Emit, Outcome, Send, StartRequest, Step, Stream
from executor.adapters.claude import config, protocol
from executor.adapters.claude.errors import code_of, code_of_retry, reason_of, reason_of_retry
from executor.adapters.claude.events import TurnEvents
from executor.adapters.claude.protocol import (
    ApiRetry,
    CanUseTool,
    ControlCancel,
    ControlRequest,
    ControlResponse,
    Init,
    Result,
    Told,
    User,
)
from executor.adapters.claude.questions import allowed, answer_to, deed_of, denied, question_of
from executor.adapters.claude.tools import ASK_USER, LEAVE_PLAN
from executor.adapters.engine_modes import MODES, Unasked
from executor.adapters.exits import outcome_of_exit
from executor.adapters.framing import Framed, Line, Lines, LineTooLong
from executor.adapters.options import told_ignored
from executor.adapters.questions import Questions
from executor.adapters.replies import decision_of
from executor.adapters.skills import prompt_with_skills
from executor.adapters.unclaimed import note, raw, too_long, undecodable, untaken
from shared.contracts.events import AttemptOutcome, InteractionResolved, SessionStarted
from shared.contracts.installs import INSTALLS
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

CAPABILITIES = Capabilities(
    deltas=True, reasoning=True, tools=True, permissions=True, questions=True, plan=True, messages=True, interrupt=True,
    resume=True, output_schema=True, usage=True, engine_modes=tuple(EngineMode),
)  # fmt: skip
LONGEST_RETRY_DELAY_MS = 60_000
NOT_IN_THIS_MODE = "Nobody may allow this in {mode} mode. Go on without it."
# The ids of our own requests: there are two, each at most once.
INITIALIZE = "req_1"
INTERRUPT = "req_2"


class ClaudeAdapter:
    provider = Provider.CLAUDE_CODE
    capabilities = CAPABILITIES
    install = INSTALLS[Provider.CLAUDE_CODE]
    credentials = config.CREDENTIALS

    def start(self, request: StartRequest) -> ClaudeConversation:
        return ClaudeConversation(request, session=None)

    def resume(self, request: StartRequest, session: str) -> ClaudeConversation:
        return ClaudeConversation(request, session)


class ClaudeConversation:
    """One process. Its outcome is its last result's; its exit counts only when no turn ended."""

    def __init__(self, request: StartRequest, session: str | None) -> None:
        self.command = config.command_for(request, session)
        self._request = request
        self._lines = Lines()
        self._events = TurnEvents()
        self._questions: Questions[str] = Questions(request.attempt)
        self._asked: dict[str, CanUseTool] = {}
        self._accepted: set[str] = set()
        self._permission = MODES[request.engine_mode].asked
        self._session: str | None = None
        self._said = 0
        self._waiting: list[str] = []
        self._untaken: set[str] = set()
        self._is_ready = False
        self._result: Result | None = None
        self._is_stopping = False
        self._is_interrupted = False
        self._is_closed = False
        self._failure: tuple[ErrorCode, str] | None = None

    # ---- what the runner calls ----

    def opened(self) -> list[Step]:
        ignored = told_ignored(self._request, config.OPTIONS, "claude-code")
        schema = {} if self._request.output_schema is None else {"jsonSchema": self._request.output_schema}
        hello = protocol.request(INITIALIZE, "initialize", forwardSubagentText=True, **schema)
        return [*ignored, Send(hello)]

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        return [step for line in self._lines.feed(stream, chunk) for step in self._on_line(line)]

    def end_of(self, stream: Stream) -> list[Step]:
        steps = [step for line in self._lines.end_of(stream) for step in self._on_line(line)]
        return [*steps, *self._events.ended(), *self._untold()] if stream == STDOUT else steps

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        request_id = self._questions.take(question_id)
        asked = self._asked.pop(request_id)
        answer = answer_to(asked, reply)
        if answer["behavior"] == "allow" and decision_of(reply) is Decision.ACCEPT_FOR_SESSION and asked.tool_name != LEAVE_PLAN:
            self._accepted.add(deed_of(asked))
        return self._answered(request_id, asked, answer)

    def message(self, text: str) -> list[Step]:
        if self._is_stopping or self._is_closed or self._failure:
            raise RunyardError(ErrorCode.CONFLICT, "claude-code is no longer taking messages")
        self._waiting.append(text)
        return self._say_waiting()

    def interrupt(self) -> list[Step]:
        if self._is_stopping or self._is_closed:
            return []
        self._is_interrupted = True
        self._stop()
        return self._interrupt_turn()

    def ended(self, exit_code: int | None) -> Outcome:
        usage, result = self._events.usage, self._result
        if self._failure is not None:
            return self._failed(*self._failure)
        if result is not None and not result.is_error and result.subtype == "success":
            return self._success(result)
        if self._is_stopping or (result is not None and (result.terminal_reason or "").startswith("aborted")):
            return Outcome(AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED, "the turn was interrupted", usage=usage)
        if result is None:
            return outcome_of_exit(exit_code, usage)
        return self._failed(code_of(result, self._events.error), reason_of(result))

    def _failed(self, code: ErrorCode, reason: str) -> Outcome:
        asked = asked_wait(code, reason, self._events.asks_ms)
        return Outcome(AttemptOutcome.ERROR, code, reason, usage=self._events.usage, retry_after_ms=asked)

    def _success(self, result: Result) -> Outcome:
        usage = self._events.usage
        if not result.result and result.structured_output is None:
            said = "claude-code finished without an answer"
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, said, usage=usage)
        answer = result.result if result.structured_output is None else result.structured_output
        return Outcome(AttemptOutcome.SUCCESS, result=answer, usage=usage)

    def _untold(self) -> list[Step]:
        """Nothing more is said to the engine."""
        count = len(self._untaken) + len(self._waiting)
        self._untaken, self._waiting = set(), []
        return untaken(count, "claude-code")

    # ---- what is said to it ----

    def _say_waiting(self) -> list[Step]:
        """Further messages, once the engine is ready."""
        if not self._is_ready or self._is_stopping:
            return []
        waiting, self._waiting = self._waiting, []
        return [self._say(text) for text in waiting]

    def _say(self, text: str) -> Step:
        """Under an id that no other attempt of the session uses: the engine takes an id it knows for a repetition.

        The prompt is what the first turn is about; whether and where the others are taken, the engine tells.
        """
        self._said += 1
        uuid = str(uuid5(NAMESPACE_URL, f"runyard:{self._request.run_id}.{self._request.attempt}.{self._said}"))
        if self._said > 1:
            self._untaken.add(uuid)
        return Send(protocol.user_message(text, uuid))

    def _stop(self) -> None:
        self._is_stopping = self._events.was_stopped = True

    def _interrupt_turn(self) -> list[Step]:
        """The result of the turn follows. Before the first turn there is nothing to end but the process."""
        return [Send(protocol.request(INTERRUPT, "interrupt"))] if self._is_ready else self._close()

    def _close(self) -> list[Step]:
        if self._is_closed:
            return []
        self._is_closed = True
        return [CloseInput()]

    # ---- lines ----

    def _on_line(self, line: Framed) -> list[Step]:
        if isinstance(line, LineTooLong):
            return [*too_long(line), *self._on_lost(line.head, ErrorCode.OUTPUT_LIMIT, f"a line of {line.length} bytes")]
        if line.stream != STDOUT or not line.data.startswith(b"{"):
            return raw(line)
        try:
            head = protocol.read_head(line.data)
        except msgspec.DecodeError as error:
            return self._on_unread(line, str(error)) or raw(line)
        try:
            told = protocol.read_line(head, line.data)
            if told is None:
                return [] if protocol.is_noise(head) else raw(line)
            return self._on_told(told, line)
        except (msgspec.DecodeError, RecursionError) as error:
            return self._on_unread(line, str(error)) or undecodable(line, str(error))

    def _on_unread(self, line: Line, why: str) -> list[Step]:
        """Nothing where the line can be missed."""
        steps = self._on_lost(line.data, ErrorCode.ENGINE_PROTOCOL_ERROR, "a line that cannot be read")
        return [*undecodable(line, why), *steps] if steps else []

    def _on_lost(self, head: bytes, code: ErrorCode, what: str) -> list[Step]:
        """A turn whose result is not read has ended all the same; a request that is not read still waits for its answer."""
        if head.startswith(protocol.RESULT_HEAD):
            self._failure = self._failure or (code, f"the turn ended in {what}")
            return self._close()
        request_id = protocol.request_id_in(head)
        return [] if request_id is None else [Send(protocol.refusal(request_id, "more than is read"))]

    def _on_told(self, told: Told, line: Line) -> list[Step]:
        match told:
            case Init(session_id=session):
                return self._on_init(session, line)
            case ControlRequest(request_id=id):
                return self._on_request(id, told, line)
            case ControlResponse():
                return self._on_response(told)
            case ControlCancel(request_id=id):
                self._asked.pop(id, None)
                return self._told_withdrawn(self._questions.withdraw(id))
            case User(is_replay=True, uuid=uuid):
                self._untaken.discard(uuid)
                return []
            case ApiRetry():
                return [*self._events.read(told, line), *self._on_retry(told)]
            case Result():
                return self._on_result(told, line)
            case _:
                return self._events.read(told, line)

    def _on_init(self, session: str, line: Line) -> list[Step]:
        """Told at the beginning of every turn."""
        if session == self._session:
            return []
        self._session = session
        return [Emit(SessionStarted(engine_session=session), line.byte_from, line.byte_to)]

    def _on_response(self, told: ControlResponse) -> list[Step]:
        answer = told.response
        if answer.request_id != INITIALIZE:
            return []
        if answer.subtype == "error":
            self._failure = (ErrorCode.ENGINE_PROTOCOL_ERROR, answer.error)
            return self._close()
        self._is_ready = True
        return [] if self._is_stopping else [self._say(prompt_with_skills(self._request)), *self._say_waiting()]

    def _on_retry(self, retry: ApiRetry) -> list[Step]:
        """Asking again with the same credentials cannot help; nor can waiting longer than a person would."""
        code = code_of_retry(retry, was_cut=False)
        is_endless = retry.attempt > config.RETRIES or retry.retry_delay_ms > LONGEST_RETRY_DELAY_MS
        if self._failure is not None or self._is_stopping or not (is_endless or code is ErrorCode.AUTH_FAILED):
            return []
        self._failure = (code, reason_of_retry(retry))
        return self._interrupt_turn()

    def _on_result(self, result: Result, line: Line) -> list[Step]:
        self._result = result
        steps = [*self._events.read(result, line), *self._withdrawn()]
        if self._untaken and not self._is_stopping and self._failure is None:
            self._result = None  # of a turn that is not the last one: the next decides, however it ends
            return [*steps, *self._events.release(final=False)]  # another turn begins with what is left
        is_answer = not result.is_error and result.subtype == "success" and bool(result.result) and self._failure is None
        told = self._events.answered(result.result or "", line) if is_answer else self._events.release(final=False)
        return [*steps, *told, *self._close()]

    # ---- what it asks ----

    def _on_request(self, id: str, told: ControlRequest, line: Line) -> list[Step]:
        try:
            asked = protocol.read_question(told.request)
        except msgspec.DecodeError as error:
            return [Send(protocol.refusal(id, "not understood")), *undecodable(line, str(error))]
        if isinstance(asked, str):
            refused = Send(protocol.refusal(id, f"{asked} is not supported here"))
            return [refused, note(line, "request_refused", f"claude-code asked for {asked}")]
        begun = [Emit(payload, line.byte_from, line.byte_to) for payload in self._events.asked(asked)]
        before = [*self._events.release(final=False), *begun, *self._told_withdrawn(self._questions.withdraw(id))]
        decided = self._decided(asked)
        if decided is not None:
            return [*before, *self._answered(id, asked, decided)]
        self._asked[id] = asked
        payload = self._questions.open(id, **question_of(asked))
        return [*before, Emit(payload, line.byte_from, line.byte_to)]

    def _decided(self, asked: CanUseTool) -> dict[str, Any] | None:
        """What the engine mode says by itself, or what a person said for the session; None where a person is asked."""
        if asked.tool_name == ASK_USER:
            return None
        if self._permission is Unasked.ALLOWED or deed_of(asked) in self._accepted:
            return allowed(asked)
        if self._permission is Unasked.PERSON:
            return None
        if asked.tool_name == LEAVE_PLAN and self._request.engine_mode is EngineMode.PLAN:
            return None
        return denied(NOT_IN_THIS_MODE.format(mode=self._request.engine_mode.value))

    def _answered(self, request_id: str, asked: CanUseTool, answer: dict[str, Any]) -> list[Step]:
        if answer["behavior"] == "deny":
            self._events.declined(asked.tool_use_id)
        elif asked.tool_name == LEAVE_PLAN and self._permission is Unasked.DENIED:
            self._permission = Unasked.PERSON
        steps: list[Step] = [Send(protocol.response(request_id, answer))]
        if answer.get("interrupt"):
            self._stop()
            steps += self._withdrawn()
        return steps

    def _withdrawn(self) -> list[Step]:
        self._asked.clear()
        return self._told_withdrawn(self._questions.withdraw_all())

    def _told_withdrawn(self, gone: list[InteractionResolved]) -> list[Step]:
        """What becomes of questions after its own interrupt is the runner's to say; of all others it hears here alone."""
        return [] if self._is_interrupted else [Emit(payload) for payload in gone]
