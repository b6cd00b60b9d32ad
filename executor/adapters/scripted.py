"""The scripted engine: what ``executor/scripted_engine.py`` prints, typed, as steps; and what it is told.

The script is looked for in the last message only, so that a conversation's history is never played again. Its ``fail`` codes
are error codes; one we do not know is ``engine_exit_nonzero`` with the code in the message. ``usage`` is the figure so far.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Literal

import msgspec

from executor.adapters.base import STDOUT, CloseInput, Command, Emit, Outcome, Send, StartRequest, Step, Stream
from executor.adapters.capping import MAX_TOOL_BYTES, capped
from executor.adapters.exits import outcome_of_exit
from executor.adapters.framing import Framed, Line, Lines, LineTooLong
from executor.adapters.questions import Questions
from executor.adapters.unclaimed import raw, too_long, undecodable
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.events import (
    AttemptOutcome,
    MessageCompleted,
    MessageDelta,
    Payload,
    PlanItem,
    PlanUpdated,
    ReasoningCompleted,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
    Usage,
    UsageUpdated,
)
from shared.contracts.installs import INSTALLS
from shared.contracts.interactions import AskedTool, InteractionType, Option, Reply
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode, RunyardError

PROGRAM = str(PurePath(__file__).parent.parent / "scripted_engine.py")
CAPABILITIES = Capabilities(
    deltas=True, reasoning=True, tools=True, permissions=True, questions=True, plan=True, messages=True, interrupt=False,
    resume=True, output_schema=True, usage=True, engine_modes=tuple(EngineMode),
)  # fmt: skip


class ScriptedAdapter:
    provider = Provider.SCRIPTED
    capabilities = CAPABILITIES
    install = INSTALLS[Provider.SCRIPTED]
    credentials = CREDENTIALS[Provider.SCRIPTED]

    def start(self, request: StartRequest) -> ScriptedConversation:
        return ScriptedConversation(request, session=None)

    def resume(self, request: StartRequest, session: str) -> ScriptedConversation:
        return ScriptedConversation(request, session)


# ---- what the engine prints, one class a line ----


class Said(msgspec.Struct, tag_field="type"):
    """A line of the scripted engine; its class is named by ``type``."""


class Session(Said, tag="session"):
    id: str


class Delta(Said, tag="delta"):
    id: str
    text: str


class Message(Said, tag="message"):
    id: str
    text: str
    final: bool = False


class Reasoning(Said, tag="reasoning"):
    id: str
    text: str


class ToolBegan(Said, tag="tool_started"):
    id: str
    name: str
    input: Any = None


class ToolEnded(Said, tag="tool_completed"):
    id: str
    name: str
    output: Any = None
    status: Literal["completed", "failed", "declined", "canceled"] = "completed"


class Used(Said, tag="usage"):
    input_tokens: int = msgspec.field(name="inputTokens", default=0)
    output_tokens: int = msgspec.field(name="outputTokens", default=0)


class Todo(msgspec.Struct):
    text: str
    status: Literal["pending", "in_progress", "completed"] = "pending"


class Plan(Said, tag="plan"):
    items: list[Todo]


class Choice(msgspec.Struct):
    label: str
    description: str | None = None


class Ask(Said, tag="ask"):
    id: int
    prompt: str
    options: list[Choice]


class Permission(Said, tag="permission"):
    id: int
    tool: str
    input: dict[str, Any]


class Completed(Said, tag="completed"):
    result: Any = msgspec.UNSET


class Failed(Said, tag="failed", rename="camel"):
    code: str
    message: str
    retry_after_ms: int | None = None


class Canceled(Said, tag="canceled"):
    pass


AnyLine = (
    Session | Delta | Message | Reasoning | ToolBegan | ToolEnded | Used | Plan | Ask | Permission | Completed | Failed | Canceled
)
_DECODER = msgspec.json.Decoder(AnyLine)


class ScriptedConversation:
    """One scripted process. Its outcome is what it told; its exit counts only when it told nothing."""

    def __init__(self, request: StartRequest, session: str | None) -> None:
        self.command = Command(argv=(sys.executable, "-I", "-S", PROGRAM))
        self._request = request
        self._session = session
        self._lines = Lines()
        self._questions: Questions[int] = Questions(request.attempt)
        self._told: Completed | Failed | Canceled | None = None
        self._answer: str | None = None
        self._usage: Usage | None = None

    def opened(self) -> list[Step]:
        last = self._request.messages[-1].content
        return [_line({"type": "start", "prompt": self._request.prompt(), "last": last, "session": self._session})]

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        return [step for line in self._lines.feed(stream, chunk) for step in self._on_line(line)]

    def end_of(self, stream: Stream) -> list[Step]:
        return [step for line in self._lines.end_of(stream) for step in self._on_line(line)]

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        asked = self._questions.take(question_id)
        return [_line({"type": "reply", "id": asked, "answer": reply.answer, "decision": reply.decision})]

    def message(self, text: str) -> list[Step]:
        if self._told is not None:
            raise RunyardError(ErrorCode.CONFLICT, "the script is over")
        return [_line({"type": "message", "text": text})]

    def interrupt(self) -> list[Step]:
        return []

    def ended(self, exit_code: int | None) -> Outcome:
        match self._told:
            case Completed(result=result):
                value = self._answer if result is msgspec.UNSET else result
                return Outcome(AttemptOutcome.SUCCESS, result=value, usage=self._usage)
            case Failed() as failed:
                return _failed(failed, self._usage)
            case Canceled():
                return Outcome(AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED, "declined and stopped", usage=self._usage)
            case None:
                return outcome_of_exit(exit_code, self._usage)

    def _on_line(self, line: Framed) -> list[Step]:
        if isinstance(line, LineTooLong):
            return too_long(line)
        if line.stream != STDOUT or not line.data.startswith(b'{"'):
            return raw(line)
        try:
            said = _DECODER.decode(line.data)
        except msgspec.ValidationError as error:
            return undecodable(line, str(error))
        except msgspec.DecodeError:
            return raw(line)
        return self._on_said(said, line)

    def _on_said(self, said: AnyLine, line: Line) -> list[Step]:
        match said:
            case Completed() | Failed() | Canceled():
                self._told = self._told or said
                return [CloseInput()]
            case Ask(id=asked, prompt=prompt, options=choices):
                options = [Option(label=each.label, description=each.description) for each in choices]
                payload = self._questions.open(asked, type=InteractionType.QUESTION, prompt=prompt, options=options)
            case Permission(id=asked, tool=name, input=input):
                tool = AskedTool(name=name, input=input)
                payload = self._questions.open(asked, type=InteractionType.PERMISSION, prompt=f"May it use {name}?", tool=tool)
            case Message(text=text):
                self._answer = text
                payload = _payload_of(said)
            case Used(input_tokens=into, output_tokens=out):
                self._usage = Usage(input_tokens=into, output_tokens=out)
                payload = UsageUpdated(usage=self._usage)
            case _:
                payload = _payload_of(said)
        return [Emit(payload, line.byte_from, line.byte_to)]


def _tool_ended(said: ToolEnded) -> Payload:
    output, truncated = capped(said.output, MAX_TOOL_BYTES) if isinstance(said.output, str) else (said.output, None)
    return ToolCompleted(tool_id=said.id, name=said.name, status=said.status, output=output, truncated=truncated)


_PAYLOADS: dict[type[Said], Callable[[Any], Payload]] = {
    Session: lambda said: SessionStarted(engine_session=said.id),
    Delta: lambda said: MessageDelta(message_id=said.id, text=said.text),
    Message: lambda said: MessageCompleted(message_id=said.id, text=said.text, final=said.final),
    Reasoning: lambda said: ReasoningCompleted(message_id=said.id, text=said.text),
    ToolBegan: lambda said: ToolStarted(tool_id=said.id, name=said.name, input=said.input),
    ToolEnded: _tool_ended,
    Plan: lambda said: PlanUpdated(items=[PlanItem(text=each.text, status=each.status) for each in said.items]),
}


def _payload_of(said: Said) -> Payload:
    return _PAYLOADS[type(said)](said)


def _failed(failed: Failed, usage: Usage | None) -> Outcome:
    known = failed.code in ErrorCode.__members__.values()
    code = ErrorCode(failed.code) if known else ErrorCode.ENGINE_EXIT_NONZERO
    message = failed.message if known else f"{failed.code}: {failed.message}"
    return Outcome(AttemptOutcome.ERROR, code, message, usage=usage, retry_after_ms=failed.retry_after_ms)


def _line(said: dict[str, Any]) -> Send:
    return Send(msgspec.json.encode(said) + b"\n")
