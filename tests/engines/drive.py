"""A small runner for tests: joins one conversation with one real process, without executor, journal or guard."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from executor.adapters.base import (
    STDERR,
    STDOUT,
    Call,
    Conversation,
    Emit,
    Outcome,
    Send,
    StartRequest,
    Step,
    Stream,
    call_stream,
)
from executor.attempts.engine_calls import EngineCalls
from shared.contracts.events import Payload
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message

PATIENCE_SECONDS = 60
EXIT_SECONDS = 5
DOOR_KEY = "door-key-never-shown-0123456789"
BLOCK = 65536

P = TypeVar("P", bound=Payload)


def request_for(home: Path, prompt: str, executable: str = "", **more: object) -> StartRequest:
    """A request for one prompt, with HOME and workspace made under ``home``."""
    workspace = home / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    fields: dict[str, object] = {
        "run_id": "run_1", "attempt": 1, "executable": executable, "home": str(home), "workspace": str(workspace),
        "messages": [Message(content=prompt)], "door_key": DOOR_KEY,
    }  # fmt: skip
    return StartRequest(**(fields | more))  # pyright: ignore[reportArgumentType]


class Driven:
    """A running engine: what it emitted so far, and ways to speak to it."""

    def __init__(self, conversation: Conversation, process: asyncio.subprocess.Process) -> None:
        self._conversation = conversation
        self.process = process
        self.emitted: list[Emit] = []
        self.sent: list[bytes] = []
        self.raw: dict[Stream, bytes] = {STDOUT: b"", STDERR: b""}
        self._changed = asyncio.Condition()
        self._answers: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._calls = EngineCalls(lambda call_id, answer: self._answers.put_nowait((call_id, answer)))
        self.reading = asyncio.create_task(self._run())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def input_link(self) -> str:
        return os.readlink(f"/proc/{self.process.pid}/fd/0")

    def payloads(self, kind: type[P]) -> list[P]:
        return [emit.payload for emit in self.emitted if isinstance(emit.payload, kind)]

    async def until(self, kind: type[P], is_it: Callable[[P], bool] = lambda _payload: True) -> P:
        """The first such event, past or to come; an engine that ends without it is an assertion error."""

        def found() -> P | None:
            return next((payload for payload in self.payloads(kind) if is_it(payload)), None)

        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: found() is not None or self.process.returncode is not None)
            payload = found()
            assert payload is not None, f"the engine ended without {kind.__name__}; it emitted {self.emitted}"
            return payload

    async def do(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Emit):
                self.emitted.append(step)
            elif isinstance(step, Send):
                self.sent.append(step.data)
                self._write(step.data)
            elif isinstance(step, Call):
                self._calls.make(step, self)
            else:
                self._close()
        async with self._changed:
            self._changed.notify_all()

    async def answer(self, question_id: str, reply: Reply) -> None:
        await self.do(self._conversation.answer(question_id, reply))

    async def message(self, text: str) -> None:
        await self.do(self._conversation.message(text))

    async def interrupt(self) -> None:
        await self.do(self._conversation.interrupt())

    async def outcome(self) -> Outcome:
        """Once the process is gone and its streams are read."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self.reading)
        return self._conversation.ended(self.process.returncode)

    async def _run(self) -> None:
        await self.do(self._conversation.opened())
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        answering = asyncio.create_task(self._take_answers())
        async with asyncio.TaskGroup() as reading:
            reading.create_task(self._read(STDOUT, self.process.stdout))
            reading.create_task(self._read(STDERR, self.process.stderr))
        answering.cancel()
        await self._calls.close()
        await self.process.wait()
        async with self._changed:
            self._changed.notify_all()

    async def _read(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(BLOCK):
            await self.fed(stream, chunk)
        await self.do(self._conversation.end_of(stream))

    async def _take_answers(self) -> None:
        while True:
            await self.answered(*await self._answers.get())

    async def answered(self, call_id: str, answer: bytes) -> None:
        """Its own server answered a call."""
        stream = call_stream(call_id)
        await self.do([*self._conversation.feed(stream, answer), *self._conversation.end_of(stream)])

    async def fed(self, stream: Stream, chunk: bytes) -> None:
        """Bytes came."""
        self.raw[stream] += chunk
        await self.do(self._conversation.feed(stream, chunk))

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(data)

    def _close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        asyncio.get_running_loop().call_later(EXIT_SECONDS, self._end)

    def _end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


D = TypeVar("D", bound=Driven)


@asynccontextmanager
async def driven(
    conversation: Conversation, request: StartRequest, env: Mapping[str, str] | None = None, kind: type[D] = Driven
) -> AsyncGenerator[D]:
    """The engine of ``conversation`` as a child of this test; killed at the end of the block if it still runs.

    As the executor lays it, no HOME stands in the folder for temporary files: codex would not put its sandbox there.
    """
    command = conversation.command
    temporary = Path(request.home) / "tmp"
    temporary.mkdir(exist_ok=True)
    for file in command.files:
        path = Path(request.home if file.root == "home" else request.workspace) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=request.workspace,
        env={"PATH": os.environ["PATH"], "HOME": request.home, "TMPDIR": str(temporary), "LANG": "C.UTF-8"}
        | dict(env or {})
        | dict(command.env),
        start_new_session=True,
    )
    engine = kind(conversation, process)
    try:
        yield engine
    finally:
        engine._end()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await engine.reading
