"""OpenCode over ACP, and over the HTTP server of the same process for what ACP has no word for: its questions to the user, what
its sub-agents ask leave for, and what they said and did.

Its log says that something is asked, one list says what, one request answers it; a task's end says that its sub-agent's session
is whole. All else is ACP's and passes through. No request is made here: a ``Call`` is data, and each has an owner in ``_owners``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import msgspec

from executor.adapters.acp.conversation import AcpConversation
from executor.adapters.base import STDERR, Call, CloseInput, Emit, Outcome, StartRequest, Step, Stream, call_of
from executor.adapters.engine_modes import decided
from executor.adapters.framing import Line, Lines
from executor.adapters.opencode.asks import BOARDS, AskedPermission, AskedQuestions, Asking, Said, fields_of, said_to, unasked
from executor.adapters.opencode.sub_agents import QUESTION_TOOL, session_of, told_in
from executor.adapters.questions import Questions
from shared.contracts.events import AttemptOutcome, Diagnostic, SessionStarted, ToolCompleted, ToolStarted
from shared.contracts.interactions import Decision, Reply
from shared.errors import ErrorCode

USER = "opencode"  # the only one its server knows
ASKING = re.compile(rb"^timestamp=\S+ level=INFO .*message=asking id=(que|per)_")
OK, GONE = 200, 404

Answered = Callable[[int, bytes], list[Step]]


class _Told(msgspec.Struct):
    status: int


class OpenCodeConversation:
    """One engine process. Its outcome is ACP's, unless what it asks could not be brought to a person, or the reply to it."""

    def __init__(self, acp: AcpConversation, request: StartRequest) -> None:
        self.command = acp.command
        self._acp = acp
        self._request = request
        self._lines = Lines()
        self._made = 0
        self._owners: dict[str, Answered] = {}
        self._bodies: dict[str, bytearray] = {}
        self._reading: dict[str, bool] = {}  # by board: something was asked since
        self._questions: Questions[str] = Questions(request.attempt, "s")
        self._open: dict[str, Asking] = {}  # by the engine's id
        self._seen: set[str] = set()
        self._asked_by: set[str] = set()  # calls of its question tool
        self._hidden: dict[str, Step] = {}
        self._session = ""
        self._helpers_unread = 0
        self._told: set[str] = set()  # parts of sub-agents' messages
        self._closing: CloseInput | None = None  # waits until every sub-agent's session is read
        self._is_stopping = False
        self._failure: tuple[ErrorCode, str] | None = None

    # ---- what the runner calls ----

    def opened(self) -> list[Step]:
        return self._acp.opened()

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        call_id = call_of(stream)
        if call_id is not None:
            self._bodies[call_id] += chunk
            return []
        if stream != STDERR:
            return self._shown(self._acp.feed(stream, chunk))
        return [step for part in chunk.splitlines(keepends=True) for step in self._on_log(part)]

    def end_of(self, stream: Stream) -> list[Step]:
        call_id = call_of(stream)
        if call_id is None:
            return self._shown(self._acp.end_of(stream))
        told, _, body = bytes(self._bodies.pop(call_id)).partition(b"\n")
        return self._owners.pop(call_id)(msgspec.json.decode(told, type=_Told).status, body)

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        if question_id not in self._questions:
            steps = self._acp.answer(question_id, reply)
            return [*self._all_withdrawn(), *self._stopped(steps)] if self._acp.is_over else steps
        asked = self._open[self._questions.handle_of(question_id)]
        said = said_to(asked, reply)
        stops = reply.decision is Decision.DECLINE_AND_STOP
        if said.then_say is not None and not stops:
            self._acp.tell(said.then_say)
        del self._open[self._questions.take(question_id)]
        return [self._say(said), *(self._stop() if stops else [])]

    def message(self, text: str) -> list[Step]:
        return self._acp.message(text)

    def interrupt(self) -> list[Step]:
        """Its open questions end with the prompt; what becomes of ours is the runner's to say."""
        steps = self._stopped(self._acp.interrupt())
        self._all_withdrawn()
        return steps

    def ended(self, exit_code: int | None) -> Outcome:
        outcome = self._acp.ended(exit_code)
        if self._failure is None:
            return outcome
        code, message = self._failure
        return replace(outcome, outcome=AttemptOutcome.ERROR, error_code=code, error_message=message, result=None)

    # ---- what ACP tells ----

    def _shown(self, steps: list[Step]) -> list[Step]:
        return [shown for step in steps for shown in self._shown_of(step)]

    def _shown_of(self, step: Step) -> list[Step]:
        """A question is no tool: its call is hidden, unless it failed before anything was asked."""
        match step:
            case Emit(payload=SessionStarted(engine_session=session)):
                self._session = session
                return [step]
            case Emit(payload=ToolStarted(name=name, tool_id=tool_id)) if name == QUESTION_TOOL:
                self._hidden[tool_id] = step
                return []
            case Emit(payload=ToolCompleted(tool_id=tool_id, status=status) as ended):
                begun = self._hidden.pop(tool_id, None)
                is_hidden = begun is not None and (status != "failed" or tool_id in self._asked_by)
                shown = [] if is_hidden else [step] if begun is None else [begun, step]
                return [*shown, *self._look_again(), *self._read_helper(ended)]
            case CloseInput() if self._helpers_unread and not self._is_stopping:
                self._closing = step
                return self._all_withdrawn()
            case CloseInput():
                return [*self._all_withdrawn(), step]
            case _:
                return [step]

    def _on_log(self, part: bytes) -> list[Step]:
        """Line by line, so that what a line makes us ask stands behind what it tells, however the bytes are split."""
        steps = self._shown(self._acp.feed(STDERR, part))
        for line in self._lines.feed(STDERR, part):
            if isinstance(line, Line) and (found := ASKING.match(line.data)) is not None:
                steps += self._look(found[1].decode())
        return steps

    # ---- what its server tells ----

    def _look(self, board: str) -> list[Step]:
        """Read a list; one that is being read already is read once more afterwards."""
        if board in self._reading:
            self._reading[board] = True
            return []
        self._reading[board] = False
        return [self._call("GET", BOARDS[board].path, b"", partial(self._on_board, board))]

    def _look_again(self) -> list[Step]:
        """A tool ended, and with it perhaps what is still open to us."""
        boards = dict.fromkeys(asked_id.partition("_")[0] for asked_id in self._open)
        return [step for board in boards for step in self._look(board)]

    def _on_board(self, board: str, status: int, body: bytes) -> list[Step]:
        has_more = self._reading.pop(board)
        if self._acp.is_over:
            return []  # its server ends with it
        if status != OK:
            return self._fail(f"what it asks could not be read: {_said(status)}")
        try:
            listed = BOARDS[board].read(body)
        except msgspec.DecodeError as error:
            return self._fail(f"what it asks could not be read: {error}")
        asked = [step for each in listed if each.id not in self._seen for step in self._ask(each)]
        return [*self._withdrawn(board, {each.id for each in listed}), *asked, *(self._look(board) if has_more else [])]

    def _ask(self, asked: Asking) -> list[Step]:
        self._seen.add(asked.id)
        if isinstance(asked, AskedPermission):
            if asked.session_id == self._session:
                return []  # ACP asks it itself
            decision = decided(self._request.engine_mode)
            if decision is not None:
                return [self._say(unasked(asked, decision))]
        if isinstance(asked, AskedQuestions) and asked.tool is not None:
            self._asked_by.add(asked.tool.call_id)
        self._open[asked.id] = asked
        return [Emit(self._questions.open(asked.id, **fields_of(asked)))]

    def _withdrawn(self, board: str, listed: set[str]) -> list[Step]:
        gone = [asked_id for asked_id in self._open if asked_id.startswith(f"{board}_") and asked_id not in listed]
        for asked_id in gone:
            del self._open[asked_id]
        return [Emit(payload) for asked_id in gone for payload in self._questions.withdraw(asked_id)]

    def _all_withdrawn(self) -> list[Step]:
        """Nobody waits for an answer any more. After its own stop the runner says so."""
        self._open.clear()
        gone = self._questions.withdraw_all()
        return [] if self._is_stopping else [Emit(payload) for payload in gone]

    def _say(self, said: Said) -> Step:
        return self._call("POST", said.path, said.body, self._on_said)

    def _on_said(self, status: int, body: bytes) -> list[Step]:
        if status == OK or self._acp.is_over:
            return []
        if status == GONE:
            message = "the engine no longer waited for the reply"
            return [Emit(Diagnostic(code="reply_undeliverable", severity="warning", message=message))]
        return self._fail(f"a reply did not reach it: {_said(status)}")

    def _read_helper(self, ended: ToolCompleted) -> list[Step]:
        session = session_of(ended)
        if session is None or self._is_stopping:
            return []
        self._helpers_unread += 1
        return [self._call("GET", f"/session/{session}/message", b"", partial(self._on_helper, ended.tool_id))]

    def _on_helper(self, tool_id: str, status: int, body: bytes) -> list[Step]:
        self._helpers_unread -= 1
        try:
            told = told_in(body, tool_id, self._told) if status == OK else None
        except msgspec.DecodeError:
            told = None
        if told is None:
            message = "what a sub-agent said and did could not be read from its session"
            told = [Diagnostic(code="sub_agent_unread", severity="warning", message=message)]
        return [*(Emit(payload) for payload in told), *([] if self._helpers_unread else self._closed())]

    def _closed(self) -> list[Step]:
        """The end that waited, if one did."""
        closing, self._closing = self._closing, None
        return [] if closing is None else [closing]

    def _fail(self, why: str) -> list[Step]:
        """It would wait for ever."""
        self._failure = self._failure or (ErrorCode.ENGINE_PROTOCOL_ERROR, why)
        return self._stop()

    def _stop(self) -> list[Step]:
        """By a reply or a failure, of which the runner does not know that it stops."""
        return [*self._all_withdrawn(), *self._stopped(self._acp.stop())]

    def _stopped(self, steps: list[Step]) -> list[Step]:
        self._is_stopping = True
        return [*self._shown(steps), *self._closed()]

    def _call(self, method: str, path: str, body: bytes, answered: Answered) -> Call:
        self._made += 1
        call_id = str(self._made)
        self._owners[call_id], self._bodies[call_id] = answered, bytearray()
        key = b64encode(f"{USER}:{self._request.door_key}".encode()).decode()
        where = f"{path}?directory={quote(self._request.workspace)}"
        return Call(call_id, method, where, body or None, {"authorization": f"Basic {key}"})


def _said(status: int) -> str:
    return f"its server answered {status}" if status else "its server did not answer"
