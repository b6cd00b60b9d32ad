"""The shape of an engine adapter: bytes in, steps out, in both directions.

An adapter makes one ``Conversation`` per engine process. It owns no process, file, socket, clock or task, so a recorded
transcript is its test. ``executor/attempts/runner.py`` joins a conversation with a process and carries out its steps.

Nothing here may know a particular engine; nothing outside this package may know one either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NewType, Protocol

from shared.contracts.credentials import Credentials
from shared.contracts.events import AttemptOutcome, Payload, Usage
from shared.contracts.installs import Install
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Capabilities, EngineMode, Provider
from shared.errors import ErrorCode

# Where bytes came from: the process's own streams, or the answer to one ``Call``.
Stream = NewType("Stream", str)
STDOUT = Stream("stdout")
STDERR = Stream("stderr")
_CALL = "call:"


def call_stream(call_id: str) -> Stream:
    """The stream on which the answer to ``Call(call_id)`` is fed."""
    return Stream(f"{_CALL}{call_id}")


def call_of(stream: Stream) -> str | None:
    """The ``call_id`` whose answer comes on this stream; None for a stream of the process."""
    return stream.removeprefix(_CALL) if stream.startswith(_CALL) else None


@dataclass(frozen=True, slots=True)
class File:
    """A file the runner writes before the engine starts, under the attempt's HOME or its workspace."""

    root: Literal["home", "workspace"]
    path: str
    content: bytes
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Command:
    """How to launch one engine process.

    ``argv[0]`` is an absolute path; prompts never travel in ``argv`` or ``env``. ``env`` is what the engine needs beyond the
    runner's allow-list. ``stdin`` None: kept open for ``Send``; bytes: written, then closed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    files: tuple[File, ...] = ()
    stdin: bytes | None = None


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What one attempt asks of an engine; paths are absolute and exist when the process starts.

    ``credential_files``: content by path below HOME; the executor has put them there, 0600.
    ``door_key``: a secret made for this attempt, for an engine that opens a server of its own; taken out of what is shown.
    """

    run_id: str
    attempt: int
    executable: str
    home: str
    workspace: str
    messages: Sequence[Message]
    model: str | None = None
    engine_mode: EngineMode = EngineMode.ASK
    tools: Mapping[str, bool] = field(default_factory=dict[str, bool])
    provider_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    credential_env: Mapping[str, str] = field(default_factory=dict[str, str])
    credential_files: Mapping[str, str] = field(default_factory=dict[str, str])
    output_schema: Mapping[str, Any] | None = None
    require_human_loop: bool = False
    door_key: str = field(default="", repr=False)

    def prompt(self) -> str:
        """The conversation as one text: the last user message, after what was said before it."""
        if len(self.messages) == 1:
            return self.messages[0].content
        earlier = "\n\n".join(f"[{each.role}]\n{each.content}" for each in self.messages[:-1])
        return f"{earlier}\n\n[{self.messages[-1].role}]\n{self.messages[-1].content}"


# ---- steps: what a conversation asks its runner to do ----


@dataclass(frozen=True, slots=True)
class Emit:
    """Something happened. The span [byte_from, byte_to) is in the stream being fed; none for what no byte caused."""

    payload: Payload
    byte_from: int | None = None
    byte_to: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the engine's stdin, whole lines, in this order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request, as data, to the server that the engine's process opened on loopback. ``path`` holds the query, too.

    Its answer comes back once, as the stream ``call_stream(call_id)``: first one JSON line ``{"status": 200}`` (0: nobody knows
    what became of it), then the body's bytes; ``end_of(stream)`` tells that it is whole. The runner bounds it and repeats
    nothing. An engine that ends leaves calls unanswered.
    """

    call_id: str
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # a key may stand there


@dataclass(frozen=True, slots=True)
class CloseInput:
    """The work is over: close stdin. The runner bounds what follows."""


Step = Emit | Send | Call | CloseInput


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an engine process ended, decided from its events first and its exit code last."""

    outcome: AttemptOutcome
    error_code: ErrorCode | None = None
    error_message: str | None = None
    result: Any = None
    usage: Usage | None = None
    retry_after_ms: int | None = None  # how long the model asked to be left alone


class Conversation(Protocol):
    """One engine process, without I/O and clock. Made by ``adapter.start(request)`` or ``adapter.resume(request, session)``."""

    command: Command

    def opened(self) -> list[Step]:
        """The process is up: the handshake."""
        ...

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        """Bytes arrived. Any split of the same bytes gives the same steps."""
        ...

    def end_of(self, stream: Stream) -> list[Step]:
        """A stream is complete: what an unfinished last line still holds."""
        ...

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        """A person replied. Raises ``RunyardError(conflict)`` for a question that is not open.

        The runner tells that it is answered; a conversation emits ``interaction.resolved`` only for a question that the engine
        itself withdrew.
        """
        ...

    def message(self, text: str) -> list[Step]:
        """A further user message. Raises ``RunyardError(capability_unavailable)`` where the engine takes none."""
        ...

    def interrupt(self) -> list[Step]:
        """The first rung of stop, [] where the protocol has none; the runner climbs the rest."""
        ...

    def ended(self, exit_code: int | None) -> Outcome:
        """The process is gone (negative: by that signal; None: never started). Exactly one outcome, from events first."""
        ...


class Adapter(Protocol):
    """Everything Runyard knows about one engine."""

    provider: Provider
    capabilities: Capabilities
    install: Install
    credentials: Credentials  # the variables and files an operator may sign it in with

    def start(self, request: StartRequest) -> Conversation:
        """Raises ``RunyardError`` (auth_missing, invalid_request, capability_unavailable) before anything runs."""
        ...

    def resume(self, request: StartRequest, session: str) -> Conversation:
        """The same, going on with the engine session ``session``."""
        ...
