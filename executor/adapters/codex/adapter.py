"""Codex over ``codex app-server``: one process, one thread, one turn with whatever is steered into it.

The handshake is initialize → initialized → thread/start or thread/resume → turn/start; the end is turn/completed → stdin closed.
Every request of the engine is answered; every request of ours has an owner in ``_pending``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from executor.adapters.base import STDOUT, CloseInput, Emit, Outcome, Send, StartRequest, Step, Stream
from executor.adapters.codex import config, protocol
from executor.adapters.codex.asks import REFUSALS, Asked, AskEdit, AskMcp, AskUser, read_request
from executor.adapters.codex.errors import code_of, code_of_text, reason_of
from executor.adapters.codex.events import TurnEvents
from executor.adapters.codex.outcomes import interrupted, outcome_of_turn
from executor.adapters.codex.protocol import (
    INVALID_REQUEST,
    ErrorRaised,
    Incoming,
    RequestResolved,
    RpcError,
    RpcId,
    ThreadOpened,
    Turn,
    TurnAccepted,
    TurnMoved,
    UsageMoved,
)
from executor.adapters.codex.questions import answer_to, decided, decided_by, decision_in, question_of
from executor.adapters.codex.sub_agents import Helpers
from executor.adapters.exits import outcome_of_exit
from executor.adapters.framing import Framed, Line, Lines, LineTooLong
from executor.adapters.options import told_ignored
from executor.adapters.questions import Questions
from executor.adapters.replies import reason_of as reason_of_reply
from executor.adapters.unclaimed import note, raw, too_long, undecodable, untaken
from shared.contracts.events import AttemptOutcome, InteractionResolved, SessionStarted
from shared.contracts.installs import INSTALLS
from shared.contracts.interactions import Decision, Reply
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

TURN_END = b'{"method":"turn/completed"'
CLIENT = {"name": "runyard", "title": "Runyard", "version": "0.1.0"}
CAPABILITIES = Capabilities(
    deltas=True, reasoning=True, tools=True, permissions=True, questions=True, plan=True, messages=True, interrupt=True,
    resume=True, output_schema=True, usage=True, engine_modes=tuple(EngineMode),
)  # fmt: skip


class CodexAdapter:
    provider = Provider.CODEX_APP_SERVER
    capabilities = CAPABILITIES
    install = INSTALLS[Provider.CODEX_APP_SERVER]
    credentials = config.CREDENTIALS

    def start(self, request: StartRequest) -> CodexConversation:
        return CodexConversation(request, session=None)

    def resume(self, request: StartRequest, session: str) -> CodexConversation:
        return CodexConversation(request, session)


T = TypeVar("T")
Answered = Callable[[Incoming, Line], list[Step]]


class CodexConversation:
    """One app-server process. Its outcome is its turn's; its exit counts only when no turn ended."""

    def __init__(self, request: StartRequest, session: str | None) -> None:
        self.command = config.command_for(request)
        self._request = request
        self._session = session
        self._lines = Lines()
        self._events = TurnEvents()
        self._helpers = Helpers()
        self._questions: Questions[RpcId] = Questions(request.attempt)
        self._asked: dict[RpcId, Asked] = {}
        self._sent = 0
        self._pending: dict[RpcId, Answered] = {}
        self._thread = ""
        self._turn: Turn | None = None
        self._turns: set[str] = set()
        self._ended_turn: Turn | None = None
        self._messages: list[str] = []
        self._steering = 0
        self._beginning = 0  # messages that begin a turn which was not accepted yet
        self._is_stopping = False
        self._was_told_to_stop = False  # by the runner, which says by itself what becomes of the questions
        self._is_closed = False
        self._failure: tuple[ErrorCode, str] | None = None

    # ---- what the runner calls ----

    def opened(self) -> list[Step]:
        ignored = told_ignored(self._request, config.OPTIONS, "codex")
        hello = {"clientInfo": CLIENT, "capabilities": {"experimentalApi": True}}
        return [*ignored, self._call("initialize", hello, self._initialized)]

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        return [step for line in self._lines.feed(stream, chunk) for step in self._on_line(line)]

    def end_of(self, stream: Stream) -> list[Step]:
        steps = [step for line in self._lines.end_of(stream) for step in self._on_line(line)]
        return [*steps, *self._helpers.ended(), *self._events.ended(), *self._untold()] if stream == STDOUT else steps

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        rpc_id = self._questions.take(question_id)
        asked = self._asked.pop(rpc_id)
        decision = decision_in(asked, reply)
        said = Send(protocol.response(rpc_id, answer_to(asked, reply)))
        if decision is Decision.DECLINE_AND_STOP:
            # a «cancel» of a command or an edit stops the turn by itself
            stop = self._stop() if isinstance(asked, AskUser | AskMcp) else []
            return [said, *self._withdrawn(), *stop]
        reason = reason_of_reply(reply) if decision is Decision.DECLINE else None
        return [said, *(self._steer(reason) if reason else [])]

    def message(self, text: str) -> list[Step]:
        if self._is_stopping or self._is_closed or self._failure:
            raise RunyardError(ErrorCode.CONFLICT, "codex is no longer taking messages")
        return self._steer(text)

    def interrupt(self) -> list[Step]:
        self._was_told_to_stop = True
        return self._stop()

    def _stop(self) -> list[Step]:
        if self._is_stopping or self._is_closed:
            return []
        self._is_stopping = self._events.was_stopped = True
        self._helpers.stop()
        return self._interrupt_turn()

    def ended(self, exit_code: int | None) -> Outcome:
        usage, turn = self._events.usage, self._ended_turn
        if self._failure is not None:
            return Outcome(AttemptOutcome.ERROR, *self._failure, usage=usage)
        if turn is not None:
            return outcome_of_turn(turn, self._events.answer, usage)
        if self._is_stopping:
            return interrupted(usage)
        if not self._turns and exit_code is not None:
            said = f"codex ended with exit status {exit_code} before its turn"
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_START_FAILED, said, usage=usage)
        return outcome_of_exit(exit_code, usage)

    # ---- the handshake ----

    def _initialized(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(ErrorCode.ENGINE_START_FAILED, answer.error)
        settings = config.thread_settings(self._request)
        if self._session is None:
            opening = self._call("thread/start", settings, self._thread_opened)
        else:
            known = {"threadId": self._session, "excludeTurns": True}
            opening = self._call("thread/resume", settings | known, self._thread_opened)
        return [Send(protocol.notification("initialized")), opening]

    def _thread_opened(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(code_of_text(answer.error.message), answer.error)
        self._thread = _decode(answer, ThreadOpened).thread.id
        started = Emit(SessionStarted(engine_session=self._thread), line.byte_from, line.byte_to)
        if self._is_stopping:
            return [started, *self._close()]
        return [started, self._start_turn(self._request.prompt(), config.skill_items(self._request))]

    def _start_turn(self, text: str, skills: Sequence[Mapping[str, str]] = ()) -> Step:
        schema = {} if self._request.output_schema is None else {"outputSchema": self._request.output_schema}
        params = {"threadId": self._thread, "input": [*_input(text), *skills]}
        return self._call("turn/start", params | schema, self._turn_accepted)

    def _turn_accepted(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(code_of_text(answer.error.message), answer.error)
        self._turn, self._ended_turn = _decode(answer, TurnAccepted).turn, None
        self._beginning = max(self._beginning - 1, 0)
        self._turns.add(self._turn.id)
        if self._is_stopping or self._failure is not None:
            return self._interrupt_turn()
        waiting, self._messages = self._messages, []
        return [step for text in waiting for step in self._steer(text)]

    # ---- messages, stop and end ----

    def _steer(self, text: str) -> list[Step]:
        """Into the running turn; before and between turns a message waits for the next one to be accepted."""
        if self._turn is None:
            self._messages.append(text)
            return []
        self._steering += 1
        params = {"threadId": self._thread, "expectedTurnId": self._turn.id, "input": _input(text)}
        return [self._call("turn/steer", params, lambda answer, line: self._steered(text, answer, line))]

    def _steered(self, text: str, answer: Incoming, line: Line) -> list[Step]:
        self._steering -= 1
        if answer.error is None:
            return self._rest()
        if answer.error.code == INVALID_REQUEST and self._may_begin():
            return self._begin_another(text)
        refused = note(line, "message_refused", f"codex did not take a message: {answer.error.message}")
        return [refused, *self._rest()]

    def _may_begin(self) -> bool:
        """Whether a message may start a turn of its own: not after a stop, and not after a failure, which is the run's."""
        is_wanted = not (self._is_stopping or self._is_closed or self._failure)
        return is_wanted and (self._ended_turn is None or self._ended_turn.status == "completed")

    def _rest(self) -> list[Step]:
        """After a turn: the message that waited for its end begins the next one; without any, this is the end."""
        if not self._is_over():
            return []
        if self._messages and self._may_begin():
            return self._begin_another(self._messages.pop(0))
        return self._finish()

    def _begin_another(self, text: str) -> list[Step]:
        """A turn of the message's own: the one before it no longer is how this ends."""
        self._ended_turn = None
        self._beginning += 1
        return [*self._events.release(final=False), self._start_turn(text)]

    def _untold(self) -> list[Step]:
        """Nothing more is said to the engine."""
        count = len(self._messages) + self._steering + self._beginning
        self._messages, self._steering, self._beginning = [], 0, 0
        return untaken(count, "codex")

    def _interrupt_turn(self) -> list[Step]:
        if self._turn is not None:
            return [self._call("turn/interrupt", {"threadId": self._thread, "turnId": self._turn.id}, _ignored)]
        # a turn/start that is on its way is interrupted once it is accepted
        return [] if any(each == self._turn_accepted for each in self._pending.values()) else self._close()

    def _on_turn_completed(self, moved: TurnMoved) -> list[Step]:
        self._ended_turn, self._turn = moved.turn, None
        withdrawn = self._withdrawn()
        if moved.turn.status == "interrupted":
            # an interrupted turn leaves its shell commands running
            clean = self._call("thread/backgroundTerminals/clean", {"threadId": self._thread}, self._cleaned)
            return [*withdrawn, *self._events.release(final=False), clean]
        return [*withdrawn, *self._rest()]

    def _cleaned(self, _answer: Incoming, _line: Line) -> list[Step]:
        return self._close()

    def _is_over(self) -> bool:
        """No turn runs, and no message is on its way that could begin another."""
        starting = any(each == self._turn_accepted for each in self._pending.values())
        return self._ended_turn is not None and self._steering == 0 and not starting

    def _finish(self) -> list[Step]:
        is_answer = self._ended_turn is not None and self._ended_turn.status == "completed"
        return [*self._events.release(final=is_answer), *self._close()]

    def _close(self) -> list[Step]:
        if self._is_closed:
            return []
        self._is_closed = True
        return [CloseInput()]

    def _fail(self, code: ErrorCode, error: RpcError) -> list[Step]:
        """What nothing names, before any turn, is a start that may do better next time: a database of codex was locked, say."""
        if code is ErrorCode.ENGINE_EXIT_NONZERO:
            code = ErrorCode.ENGINE_PROTOCOL_ERROR if self._turns else ErrorCode.ENGINE_START_FAILED
        self._failure = (code, error.message)
        return self._close()

    # ---- lines ----

    def _on_line(self, line: Framed) -> list[Step]:
        if isinstance(line, LineTooLong):
            return [*too_long(line), *self._on_lost(line)]
        if line.stream != STDOUT or not line.data.startswith(b"{"):
            return raw(line)
        try:
            incoming = protocol.read_line(line.data)
        except msgspec.DecodeError:
            return raw(line)
        try:
            return self._on_incoming(incoming, line)
        except (msgspec.DecodeError, RecursionError) as error:
            refused = [] if incoming.method is None or incoming.id is None else [_refuse(incoming.id, incoming.method)]
            return [*refused, *undecodable(line, str(error))]

    def _on_lost(self, line: LineTooLong) -> list[Step]:
        """A request is refused unread. A turn whose end was in such a line has ended all the same; nothing more would come."""
        if line.stream != STDOUT:
            return []
        request = protocol.request_in(line.head)
        if request is not None:
            return [_refuse(*request), note(line, "request_refused", f"codex asked for {request[1]}")]
        if not line.head.startswith(TURN_END):
            return []
        self._failure = (ErrorCode.OUTPUT_LIMIT, f"the turn ended in a line of {line.length} bytes, more than is read")
        return self._close()

    def _on_incoming(self, incoming: Incoming, line: Line) -> list[Step]:
        match incoming:
            case Incoming(id=None, method=str(method)):
                return self._on_notification(method, incoming, line)
            case Incoming(id=id, method=str(method)) if id is not None and id not in self._asked:
                return self._on_request(id, method, incoming, line)
            case Incoming(id=id) if id in self._pending:
                return self._pending.pop(id)(incoming, line)
            case _:
                return raw(line)

    def _on_notification(self, method: str, incoming: Incoming, line: Line) -> list[Step]:
        if method not in protocol.NOTIFICATIONS:
            return [] if protocol.is_noise(method) else raw(line)
        said = msgspec.json.decode(incoming.params, type=protocol.NOTIFICATIONS[method])
        self._helpers.learn(said)
        match said:
            case RequestResolved(request_id=id):
                self._asked.pop(id, None)
                return self._told_withdrawn(self._questions.withdraw(id))
            case UsageMoved(thread_id=thread, turn_id=turn) if thread == self._thread and turn not in self._turns:
                return []  # a resumed thread first tells the tokens of its last turn
            case UsageMoved(thread_id=thread) if thread != self._thread:
                return [Emit(payload, line.byte_from, line.byte_to) for payload in self._events.count(said)]
            case _ if (thread := getattr(said, "thread_id", "")) not in {self._thread, ""}:
                return self._helpers.read(thread, method, said, line)
            case TurnMoved():
                return self._on_turn_completed(said) if method == "turn/completed" else []
            case ErrorRaised(error=error, will_retry=True) if code_of(error) is ErrorCode.AUTH_FAILED:
                return self._give_up(error)
            case _:
                return self._events.read(method, said, line)

    def _give_up(self, error: protocol.TurnError) -> list[Step]:
        """Asking again with the same credentials cannot help."""
        if self._failure is not None:
            return []
        self._failure = (ErrorCode.AUTH_FAILED, reason_of(error))
        return self._interrupt_turn()

    def _on_request(self, id: RpcId, method: str, incoming: Incoming, line: Line) -> list[Step]:
        asked = read_request(method, incoming.params)
        if asked is None:
            refusal = REFUSALS.get(method)
            refused = _refuse(id, method) if refusal is None else Send(protocol.response(id, refusal))
            return [refused, note(line, "request_refused", f"codex asked for {method}")]
        decision = decided_by(self._request.engine_mode, asked)
        if decision is not None:
            said = protocol.response(id, decided(asked, decision))
            return [*self._events.release(final=False), Send(said)]
        self._asked[id] = asked
        item_id = asked.item_id if isinstance(asked, AskEdit) else ""
        diffs = self._events.diffs_of(item_id) or self._helpers.diffs_of(item_id)
        payload = self._questions.open(id, **question_of(asked, diffs))
        return [*self._events.release(final=False), Emit(payload, line.byte_from, line.byte_to)]

    def _withdrawn(self) -> list[Step]:
        self._asked.clear()
        return self._told_withdrawn(self._questions.withdraw_all())

    def _told_withdrawn(self, gone: list[InteractionResolved]) -> list[Step]:
        """What becomes of questions once the runner stops it is the runner's to say."""
        return [] if self._was_told_to_stop else [Emit(payload) for payload in gone]

    def _call(self, method: str, params: dict[str, Any], answered: Answered) -> Send:
        self._sent += 1
        self._pending[self._sent] = answered
        return Send(protocol.request(self._sent, method, params))


def _ignored(_answer: Incoming, _line: Line) -> list[Step]:
    return []


def _refuse(id: RpcId, method: str) -> Send:
    return Send(protocol.refusal(id, method))


def _input(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _decode(answer: Incoming, kind: type[T]) -> T:
    return msgspec.json.decode(answer.result, type=kind)
