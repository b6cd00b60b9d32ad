"""An engine for tests: a shell script that is the prompt, and an adapter that understands a handful of words it prints.

``say X`` a message, ``delta X`` a piece of one, ``ask ID`` a question, ``may ID`` a permission, ``withdraw ID`` no longer,
``session ID``, ``done`` success; anything else is raw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from executor.adapters.base import STDOUT, CloseInput, Command, Emit, File, Outcome, Send, StartRequest, Step, Stream
from shared.contracts.credentials import Credentials
from shared.contracts.events import (
    AttemptOutcome,
    InteractionRequested,
    InteractionResolved,
    MessageCompleted,
    MessageDelta,
    RawStdout,
    SessionStarted,
)
from shared.contracts.installs import Install
from shared.contracts.interactions import InteractionType, Reply
from shared.contracts.providers import Capabilities, Provider
from shared.errors import ErrorCode, RunyardError


def _deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(400):
        nest = [nest]
    return nest


_RESULTS: dict[str, Callable[[], Any]] = {
    "plain": lambda: "done",
    "json": lambda: "{}",
    "key": lambda: '{"is": "own-secret-value"}',
    "keys": lambda: f'{{"is": "{"own-secret-value " * 200}"}}',
    "deep": _deep,
    "half": lambda: "half a pair: \ud83d",
}


class ShellAdapter:
    provider = Provider.SCRIPTED
    install = Install()
    credentials = Credentials(more=("SHELL_KEY",))

    def __init__(self, **capabilities: Any) -> None:
        self.capabilities = Capabilities(**capabilities)

    def start(self, request: StartRequest) -> ShellConversation:
        if request.provider_options.get("refuse"):
            raise RunyardError(ErrorCode.AUTH_MISSING, "no key")
        if request.provider_options.get("crash") == "start":
            raise LookupError
        return ShellConversation(request)

    def resume(self, request: StartRequest, session: str) -> ShellConversation:
        return ShellConversation(request)


class ShellConversation:
    def __init__(self, request: StartRequest) -> None:
        self._options: dict[str, Any] = dict(request.provider_options)
        files = (File("home", "bin/script.sh", request.prompt().encode()),)
        argv = tuple(self._options.get("argv", ("/bin/sh", f"{request.home}/bin/script.sh")))
        stdin = self._options.get("stdin")
        self.command = Command(argv, files=files, stdin=stdin.encode() if stdin is not None else None)
        self._rest: list[bytes] = []
        self._at = 0
        self._is_done = False

    def _crash(self, where: str) -> None:
        if self._options.get("crash") == where:
            raise LookupError(where)

    def opened(self) -> list[Step]:
        self._crash("opened")
        return [Send(b"x" * self._options["send"])] if "send" in self._options else []

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        self._crash("feed")
        if stream != STDOUT:
            return []
        self._rest.append(chunk)
        if b"\n" not in chunk:
            return []
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest = [rest]
        return [step for line in lines for step in self._line(line)]

    def _line(self, line: bytes) -> list[Step]:
        begin, self._at = self._at, self._at + len(line) + 1
        word, _, rest = line[:200_000].decode(errors="replace").partition(" ")
        match word:
            case "say":
                payload = MessageCompleted(message_id="m", text=rest)
            case "delta":
                payload = MessageDelta(message_id="m", text=rest)
            case "ask":
                payload = InteractionRequested(question_id=rest, type=InteractionType.QUESTION, prompt="?")
            case "withdraw":
                payload = InteractionResolved(question_id=rest, how="withdrawn")
            case "may":
                payload = InteractionRequested(question_id=rest, type=InteractionType.PERMISSION, prompt="?")
            case "session":
                payload = SessionStarted(engine_session=rest)
            case "done":
                self._is_done = True
                return [CloseInput()]
            case _:
                payload = RawStdout(text=f"{word} {rest}"[:100])
        return [Emit(payload, begin, begin + len(line))]

    def end_of(self, stream: Stream) -> list[Step]:
        return []

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        self._crash("answer")
        return [Send(f"{reply.answer}\n".encode())]

    def message(self, text: str) -> list[Step]:
        if self._options.get("mute"):
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, "it takes none")
        return [Send(f"{text}\n".encode())]

    def interrupt(self) -> list[Step]:
        return [Send(b"interrupt\n")] if self._options.get("interrupt") else []

    def ended(self, exit_code: int | None) -> Outcome:
        self._crash("ended")
        if self._is_done:
            return Outcome(AttemptOutcome.SUCCESS, result=_RESULTS[self._options.get("result", "plain")]())
        return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_EXIT_NONZERO, f"exit status {exit_code}")
