"""The one client of the Agent Client Protocol: one process, one session, one prompt at a time.

The handshake is initialize → session/new or session/load → session/set_mode → session/prompt; the end is the last prompt's answer
→ stdin closed. What differs between engines stands in ``AcpProfile``. Every request of the engine is answered, with a refusal
where it wants to use our files or terminals; every request of ours has an owner in ``_pending``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from executor.adapters.acp import errors, protocol, tools
from executor.adapters.acp.events import PromptEvents
from executor.adapters.acp.log import CallLog, Retry
from executor.adapters.acp.messages import NextPrompt
from executor.adapters.acp.profile import AcpProfile
from executor.adapters.acp.protocol import (
    AUTH_REQUIRED,
    NOISE,
    AskPermission,
    Chunk,
    Incoming,
    Plan,
    PromptEnded,
    RpcError,
    RpcId,
    SessionOpened,
    SessionUpdate,
    ToolCall,
)
from executor.adapters.acp.questions import Asked, answers_of, asked_of, outcome_of, question_of
from executor.adapters.acp.settings import AcpSetup
from executor.adapters.asked_waits import asked_wait
from executor.adapters.base import STDERR, STDOUT, CloseInput, Emit, Outcome, Send, StartRequest, Step, Stream
from executor.adapters.engine_modes import decided
from executor.adapters.exits import outcome_of_exit
from executor.adapters.framing import HEAD_BYTES, Framed, Line, Lines, LineTooLong
from executor.adapters.options import told_ignored
from executor.adapters.questions import Questions
from executor.adapters.replies import decision_of, reason_of
from executor.adapters.skills import prompt_with_skills
from executor.adapters.unclaimed import note, raw, too_long, undecodable
from shared.contracts.events import AttemptOutcome, SessionStarted
from shared.contracts.interactions import Decision, Reply
from shared.errors import ErrorCode, RunyardError

CLIENT = {"name": "runyard", "title": "Runyard", "version": "0.1.0"}
NO_SERVICES = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
# Refused without a word: engines ask for these whatever we say we serve, and go on without them.
EXPECTED_REFUSALS = frozenset({"fs/write_text_file", "fs/read_text_file", "craft/drainMidTurnQueue"})
DECLINED = "The user declined that tool call. Go on without it."

T = TypeVar("T")
Answered = Callable[[Incoming, Line], list[Step]]


class AcpConversation:
    """One engine process. Its outcome is its last prompt's; its exit counts only when no prompt ended."""

    def __init__(self, profile: AcpProfile, setup: AcpSetup, request: StartRequest, session: str | None) -> None:
        self.command = setup.command
        self._setup = setup
        self._profile = profile
        self._request = request
        self._first_prompt = prompt_with_skills(request)
        self._session = session
        self._lines = Lines()
        self._events = PromptEvents(profile)
        self._questions: Questions[Asked] = Questions(request.attempt)
        self._asked: list[Asked] = []  # an engine may use an id twice
        self._sent = 0
        self._pending: dict[RpcId, Answered] = {}
        self._session_id = ""
        self._is_prompting = False
        self._stop_reason: str | None = None
        self._next = NextPrompt()
        self._log = CallLog(profile)
        self._is_stopping = False
        self._is_closed = False
        self._failure: tuple[ErrorCode, str] | None = None

    # ---- what the runner calls ----

    def opened(self) -> list[Step]:
        params = {"protocolVersion": protocol.VERSION, "clientCapabilities": NO_SERVICES, "clientInfo": CLIENT}
        ignored = told_ignored(self._request, self._profile.options, self._profile.engine)
        return [*ignored, self._call("initialize", params, self._initialized)]

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        return [step for line in self._lines.feed(stream, chunk) for step in self._on_line(line)]

    def end_of(self, stream: Stream) -> list[Step]:
        steps = [step for line in self._lines.end_of(stream) for step in self._on_line(line)]
        if stream != STDOUT:
            return steps
        return [*steps, *self._events.prompt_ended(final=False, well=False), *self._next.untold(self._profile.engine)]

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        asked = self._questions.take(question_id)
        self._asked.remove(asked)
        if asked.questions and reply.decision is None:
            return [Send(protocol.response(asked.rpc_id, answers_of(asked, reply.answer)))]
        return self._decide(asked, decision_of(reply), reason_of(reply))

    def message(self, text: str) -> list[Step]:
        """Taken when the prompt that runs is over."""
        self._refuse_when_over()
        self._next.say(text)
        return []

    def tell(self, text: str) -> None:
        """The same for a word of ours. Raises ``RunyardError(conflict)``, too."""
        self._refuse_when_over()
        self._next.tell(text)

    def interrupt(self) -> list[Step]:
        if self._is_stopping or self._is_closed:
            return []
        self._is_stopping = self._events.was_stopped = True
        return self._cancel() if self._is_prompting else self._close()

    def stop(self) -> list[Step]:
        """The same by a reply or a failure. The runner does not know that it stops: what is open is told as withdrawn."""
        return [*self._told_withdrawn(), *self.interrupt()]

    @property
    def is_over(self) -> bool:
        """The last prompt ended, or nobody wants it to go on."""
        return self._is_stopping or self._is_closed

    def ended(self, exit_code: int | None) -> Outcome:
        usage = self._events.usage
        if self._failure is not None:
            asked = asked_wait(*self._failure, self._log.asks_ms)
            return Outcome(AttemptOutcome.ERROR, *self._failure, usage=usage, retry_after_ms=asked)
        if self._is_stopping or self._stop_reason == "cancelled":
            return Outcome(AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED, "the prompt was cancelled", usage=usage)
        if self._stop_reason is None or self._is_prompting:
            return outcome_of_exit(exit_code, usage)
        if self._events.answer is None:
            said = f"{self._profile.engine} finished without an answer"
            return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, said, usage=usage)
        return Outcome(AttemptOutcome.SUCCESS, result=self._events.answer, usage=usage)

    # ---- the handshake ----

    def _initialized(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(ErrorCode.ENGINE_START_FAILED, answer.error)
        if self._setup.sign_in is None:
            return self._open_session()
        return [self._call("authenticate", dict(self._setup.sign_in), self._signed_in)]

    def _signed_in(self, answer: Incoming, line: Line) -> list[Step]:
        return self._open_session() if answer.error is None else self._fail(ErrorCode.AUTH_FAILED, answer.error)

    def _open_session(self) -> list[Step]:
        if self._is_stopping:
            return self._close()
        params = {"cwd": self._request.workspace, "mcpServers": self._setup.mcp_servers}
        if self._session is None:
            return [self._call("session/new", {**params, **self._setup.new_session}, self._session_opened)]
        return [self._call("session/load", params | {"sessionId": self._session}, self._session_opened)]

    def _session_opened(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(self._code_of_opening(answer.error), answer.error)
        self._session_id = self._session or _decode(answer, SessionOpened).session_id
        started = Emit(SessionStarted(engine_session=self._session_id), line.byte_from, line.byte_to)
        if self._is_stopping:
            return [started, *self._close()]
        mode = {"sessionId": self._session_id, "modeId": self._profile.modes[self._request.engine_mode]}
        return [started, self._call("session/set_mode", mode, self._mode_set)]

    def _code_of_opening(self, error: RpcError) -> ErrorCode:
        if error.code == AUTH_REQUIRED:
            return ErrorCode.AUTH_MISSING
        code = self._profile.error_code(error)
        return code if self._session is None or code in errors.NOT_OF_A_SESSION else ErrorCode.NOT_FOUND

    def _mode_set(self, answer: Incoming, line: Line) -> list[Step]:
        if answer.error is not None:
            return self._fail(ErrorCode.ENGINE_PROTOCOL_ERROR, answer.error)
        return self._close() if self._is_stopping else [self._prompt(self._first_prompt)]

    # ---- prompts, messages, stop and end ----

    def _prompt(self, text: str) -> Send:
        self._is_prompting = True
        self._log.begin()
        self._events.begin()
        params = {"sessionId": self._session_id, "prompt": protocol.prompt_of([_no_command(text)])}
        return self._call("session/prompt", params, self._prompt_ended)

    def _prompt_ended(self, answer: Incoming, line: Line) -> list[Step]:
        self._is_prompting = False
        withdrawn = self._withdrawn()
        if answer.error is not None:
            steps = [*withdrawn, *self._events.prompt_ended(final=False, well=False)]
            is_ours = self._is_stopping or self._failure is not None
            return [*steps, *(self._close() if is_ours else self._fail(self._profile.error_code(answer.error), answer.error))]
        ended = _decode(answer, PromptEnded)
        self._stop_reason = ended.stop_reason
        counted = [*withdrawn, *self._events.count(ended)]
        failure = self._failure_in(ended)
        if failure is not None and self._failure is None and not self._is_stopping:
            self._failure = failure
        if self._failure is not None or self._is_stopping or ended.stop_reason == "cancelled":
            return [*counted, *self._events.prompt_ended(final=False, well=False), *self._close()]
        if self._next:
            return [*counted, *self._events.prompt_ended(final=False), self._prompt(self._next.take())]
        return [*counted, *self._events.prompt_ended(final=True), *self._close()]

    def _refuse_when_over(self) -> None:
        if self._is_stopping or self._is_closed or self._failure:
            raise RunyardError(ErrorCode.CONFLICT, f"{self._profile.engine} is no longer taking messages")

    def _failure_in(self, ended: PromptEnded) -> tuple[ErrorCode, str] | None:
        """What an end is that only looks like one."""
        match ended.stop_reason:
            case "end_turn" | "cancelled":
                pass
            case "max_tokens":
                return ErrorCode.OUTPUT_LIMIT, "the model's answer is longer than it may be"
            case "refusal":
                return ErrorCode.INVALID_REQUEST, "the model refused to answer"
            case other:
                return ErrorCode.ENGINE_EXIT_NONZERO, f"{self._profile.engine} stopped: {other[:64]}"
        quota = ended.meta.quota if ended.meta is not None else None
        if self._profile.needs_model_usage and quota is not None and not quota.model_usage:
            return ErrorCode.MODEL_UNAVAILABLE, "the model's answer broke off"
        return None

    def _cancel(self) -> list[Step]:
        """Stop the prompt. Its open questions are answered with it."""
        self._questions.withdraw_all()
        asked, self._asked = self._asked, []
        outcome = {"outcome": {"outcome": "cancelled"}}
        answers = [Send(protocol.response(each.rpc_id, outcome)) for each in asked]
        return [Send(protocol.notification("session/cancel", {"sessionId": self._session_id})), *answers]

    def _close(self) -> list[Step]:
        if self._is_closed:
            return []
        self._is_closed = True
        return [CloseInput()]

    def _fail(self, code: ErrorCode, error: RpcError) -> list[Step]:
        is_vague = code is ErrorCode.ENGINE_EXIT_NONZERO
        self._failure = (ErrorCode.ENGINE_PROTOCOL_ERROR if is_vague else code, errors.reason_of(error))
        return self._close()

    # ---- lines ----

    def _on_line(self, line: Framed) -> list[Step]:
        if isinstance(line, LineTooLong):
            return [*too_long(line), *(self._on_lost(line.head) if line.stream == STDOUT else [])]
        if line.stream == STDERR:
            return self._on_log(line)
        if not line.data.startswith(b"{"):
            return raw(line)
        try:
            incoming = protocol.read_line(line.data)
        except msgspec.DecodeError:
            return [*raw(line), *self._on_lost(line.data[:HEAD_BYTES])]
        try:
            return self._on_incoming(incoming, line)
        except (msgspec.DecodeError, RecursionError) as error:
            refused = [] if incoming.method is None or incoming.id is None else [_refuse(incoming.id, incoming.method)]
            return [*refused, *undecodable(line, str(error))]

    def _on_lost(self, head: bytes) -> list[Step]:
        """A request that is not read still waits for its answer; an answer that is not read will not come again."""
        lost = protocol.read_head(head)
        if lost is None or lost.id is None:
            return []
        if lost.method is not None:
            return [_refuse(lost.id, lost.method)]
        if self._pending.pop(lost.id, None) is None:
            return []
        if not self._is_stopping:
            self._failure = self._failure or (ErrorCode.ENGINE_PROTOCOL_ERROR, "an answer of it could not be read")
        return [*self._withdrawn(), *self._close()]

    def _on_incoming(self, incoming: Incoming, line: Line) -> list[Step]:
        match incoming:
            case Incoming(id=None, method="session/update"):
                return self._on_update(msgspec.json.decode(incoming.params, type=SessionUpdate), line)
            case Incoming(id=None, method=str()):
                return []  # an engine's private notice for its own editor
            case Incoming(id=id, method="session/request_permission") if id is not None:
                return self._on_permission(id, msgspec.json.decode(incoming.params, type=AskPermission), line)
            case Incoming(id=id, method=str(method)) if id is not None:
                noted = [] if method in EXPECTED_REFUSALS else [note(line, "request_refused", f"it asked for {method[:64]}")]
                return [_refuse(id, method), *noted]
            case Incoming(id=id) if id in self._pending:
                return self._pending.pop(id)(incoming, line)
            case _:
                return raw(line)

    def _on_update(self, told: SessionUpdate, line: Line) -> list[Step]:
        if not self._is_prompting or told.session_id != self._session_id:
            return []  # the history of a session that is being loaded, or what is of no prompt of ours
        kind, update = protocol.read_update(told.update)
        if update is not None:
            self._log.heard()
        match update:
            case Chunk() if kind == "agent_message_chunk":
                return self._events.said(update, line)
            case Chunk():
                return self._events.thought(update, line)
            case ToolCall():
                return self._events.tool(update, line)
            case Plan():
                return self._events.plan(update, line)
            case None:
                return [] if kind in NOISE else raw(line)

    def _on_permission(self, id: RpcId, ask: AskPermission, line: Line) -> list[Step]:
        asked = asked_of(id, ask)
        tool, told = self._events.asked(ask.tool_call, line, is_question=bool(asked.questions))
        if not self._is_prompting or self._is_stopping or self._failure is not None:
            return [*told, Send(protocol.response(id, {"outcome": {"outcome": "cancelled"}}))]
        decision = None if asked.questions else decided(self._request.engine_mode)
        if decision is not None:
            return [*told, *self._decide(asked, decision)]
        self._asked.append(asked)
        payload = self._questions.open(asked, **question_of(asked, ask.tool_call, tools.asked(tool)))
        return [*told, Emit(payload, line.byte_from, line.byte_to)]

    def _decide(self, asked: Asked, decision: Decision, reason: str | None = None) -> list[Step]:
        said = Send(protocol.response(asked.rpc_id, outcome_of(asked, decision)))
        if decision in {Decision.ACCEPT, Decision.ACCEPT_FOR_SESSION}:
            return [said]
        declined = self._events.declined(asked.tool_call_id)
        if decision is Decision.DECLINE_AND_STOP:
            return [said, *declined, *self.stop()]
        if reason is not None or self._profile.ends_turn_on_no:
            self._next.tell(f"{DECLINED} They say: {reason}" if reason else DECLINED)
        return [said, *declined]

    def _withdrawn(self) -> list[Step]:
        """The prompt ended, and with it what it asked."""
        self._asked.clear()
        return self._told_withdrawn()

    def _told_withdrawn(self) -> list[Step]:
        """What becomes of questions after the runner's own stop is the runner's to say."""
        gone = self._questions.withdraw_all()
        return [] if self._is_stopping else [Emit(payload) for payload in gone]

    # ---- the engine's own log ----

    def _on_log(self, line: Line) -> list[Step]:
        told = self._log.read(line.data.decode("utf-8", "replace"))
        if told is None:
            return raw(line)
        return [step for retry in told for step in self._on_retry(retry, line)] if self._is_prompting else []

    def _on_retry(self, retry: Retry, line: Line) -> list[Step]:
        """While a tool runs it is a sub-agent's call, or one the engine makes for itself: that one may fail."""
        if retry.is_enough and not self._events.has_open_tools:
            return self._give_up(retry)
        return self._events.retried(retry, line)

    def _give_up(self, retry: Retry) -> list[Step]:
        """The engine would go on for minutes."""
        if self._failure is not None or self._is_stopping:
            return []
        self._failure = (retry.code, retry.reason)
        return [*self._told_withdrawn(), *self._cancel()]

    def _call(self, method: str, params: dict[str, Any], answered: Answered) -> Send:
        self._sent += 1
        self._pending[self._sent] = answered
        return Send(protocol.request(self._sent, method, params))


def _no_command(text: str) -> str:
    """A prompt is never a command of the engine's own, whatever it begins with."""
    return f"[user]\n{text}" if text.lstrip().startswith(("/", "$", "!", "?")) else text


def _refuse(id: RpcId, method: str) -> Send:
    return Send(protocol.refusal(id, method))


def _decode(answer: Incoming, kind: type[T]) -> T:
    return msgspec.json.decode(answer.result, type=kind)
