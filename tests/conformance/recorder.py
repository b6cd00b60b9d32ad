"""Records one case of one engine against the model stub: its bytes in both directions, its command line, its exit.

What is another every time is made the same: ports, folders, ids. Credentials are test keys and stand nowhere.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, Call, Conversation, Outcome, StartRequest, Step, Stream
from shared.contracts.events import AttemptOutcome, Payload, SessionStarted
from shared.contracts.interactions import Reply
from shared.contracts.providers import EngineMode
from shared.engine_programs import executable_of
from tests.conformance.cases import WORD, Case
from tests.conformance.engines import Engine
from tests.conformance.ground import ENGINES_DIR, KEYS
from tests.conformance.seen import Data, Seen
from tests.conformance.substance import differences
from tests.engines.drive import Driven, driven, request_for
from tests.loopback import unused_port
from tests.model_stub.server import serving

LONG_LINE, LONG_TEXT = 16 * 1024, 500
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PORT = re.compile(rb"127\.0\.0\.1:\d{4,5}")


Who = Literal["recv", "stderr", "send", "person", "call", "answer"]


@dataclass(frozen=True)
class Move:
    """A line of a transcript, with its time since launch. What a person does is a line of ours: ``{"answer": […]}``.

    So is a request to the engine's own server (``call``: its id, method, path, body), and what came back (``answer``: id, body).
    """

    ms: int
    who: Who
    data: bytes


@dataclass(frozen=True)
class Recording:
    """``exit_code`` is negative for a signal; ``session`` is the one that was resumed."""

    case: str
    argv: tuple[str, ...]
    moves: tuple[Move, ...]
    exit_code: int | None
    session: str | None
    seen: Seen

    @property
    def stdout(self) -> bytes:
        return self._lines_of("recv")

    def write(self, folder: Path) -> None:
        """As the cases under tests/recordings are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "case.txt").write_text(f"{self.case}\n")
        (folder / "argv.txt").write_text("".join(f"{each}\n" for each in self.argv))
        (folder / "exit.txt").write_text(f"exit_code={self.exit_code}\n")
        if self.session is not None:
            (folder / "session.txt").write_text(f"{self.session}\n")
        (folder / "stdout.jsonl").write_bytes(self.stdout)
        (folder / "stdin.jsonl").write_bytes(self._lines_of("send"))
        (folder / "stderr.txt").write_bytes(self._lines_of("stderr"))
        (folder / "transcript.jsonl").write_text(
            "".join(f"{json.dumps(_told(move), ensure_ascii=False)}\n" for move in self.moves)
        )

    def _lines_of(self, who: Who) -> bytes:
        return b"".join(move.data for move in self.moves if move.who == who)


class Recorded(Driven):
    """A running engine whose every line is kept, met as a person meets an attempt."""

    def __init__(self, conversation: Conversation, process: Any) -> None:
        self.moves: list[Move] = []
        self._began = time.monotonic()
        self._unfinished = {STDOUT: b"", STDERR: b""}
        super().__init__(conversation, process)

    async def first(self, kind: str, number: int = 1) -> Data:
        def is_it(_payload: Payload) -> bool:
            return len(self._of_kind(kind)) >= number

        await self.until(Payload, is_it)
        return self._of_kind(kind)[number - 1]

    async def reply(self, question_id: str, **reply: Any) -> None:
        self._person(answer=[question_id, reply])
        await self.answer(question_id, Reply.model_validate(reply))

    async def say(self, text: str) -> None:
        self._person(message=[text])
        await self.message(text)

    async def stop(self) -> None:
        self._person(interrupt=[])
        await self.interrupt()

    async def ended(self) -> Seen:
        return seen_of(self, await self.outcome())

    async def do(self, steps: list[Step]) -> None:
        for call in steps:
            if isinstance(call, Call):
                self._ours("call", [call.call_id, call.method, call.path, (call.body or b"").decode()])
        await super().do(steps)

    async def answered(self, call_id: str, answer: bytes) -> None:
        self._ours("answer", [call_id, answer.decode()])
        await super().answered(call_id, answer)

    def _ours(self, who: Who, told: list[str]) -> None:
        self.moves.append(Move(self._ms(), who, json.dumps(told).encode()))

    def _person(self, **does: Any) -> None:
        self.moves.append(Move(self._ms(), "person", json.dumps(does).encode()))

    def _of_kind(self, kind: str) -> list[Data]:
        return [_data(emit.payload) for emit in self.emitted if emit.payload.KIND.value == kind]

    def _ms(self) -> int:
        return int((time.monotonic() - self._began) * 1000)

    def _write(self, data: bytes) -> None:
        self.moves += [Move(self._ms(), "send", line + b"\n") for line in data.split(b"\n") if line]
        super()._write(data)

    async def fed(self, stream: Stream, chunk: bytes) -> None:
        *lines, self._unfinished[stream] = (self._unfinished[stream] + chunk).split(b"\n")
        self.moves += [Move(self._ms(), "recv" if stream == STDOUT else "stderr", line + b"\n") for line in lines]
        await super().fed(stream, chunk)


def seen_of(engine: Driven, outcome: Outcome) -> Seen:
    told = [(emit.payload.KIND.value, _data(emit.payload)) for emit in engine.emitted]
    usage = None if outcome.usage is None else json.loads(outcome.usage.wire_json())
    code = None if outcome.error_code is None else outcome.error_code.value
    return Seen(told, outcome.outcome.value, code, outcome.error_message, outcome.result, usage)


async def record(engine: Engine, case: Case, home: Path) -> Recording:
    """Raises ``LookupError`` where the engine is not installed."""
    async with serving() as stub:
        base_url = f"http://127.0.0.1:{unused_port()}/v1" if case.name == "fails: refused" else stub.base_url
        session = await _earlier_session(engine, case, home, base_url) if case.after is not None else None
        request = _request(engine, home, base_url, case.marker, dict(case.asks))
        adapter = ADAPTERS[engine.provider]
        conversation = adapter.start(request) if session is None else adapter.resume(request, session)
        async with driven(conversation, request, kind=Recorded) as running:
            if case.person is not None:
                await case.person(running)
            seen = await running.ended()
    same = _Sameness(home)
    moves = tuple(Move(move.ms, move.who, same(move.data, move.who == "send")) for move in running.moves)
    argv = tuple(same(each.encode()).decode() for each in conversation.command.argv)
    resumed = None if session is None else same(session.encode()).decode()
    return Recording(case.name, argv, moves, running.process.returncode, resumed, seen)


async def _earlier_session(engine: Engine, case: Case, home: Path, base_url: str) -> str:
    prompt = f"remember the word {WORD}" + ("" if case.after == "ended" else " [[slow:400]]")
    request = _request(engine, home, base_url, prompt, {})
    async with driven(ADAPTERS[engine.provider].start(request), request, kind=Recorded) as running:
        session = (await running.until(SessionStarted)).engine_session
        if case.after != "ended":
            await running.first("message.delta")
        if case.after == "stopped":
            await running.stop()
        elif case.after == "killed":
            running.process.kill()
        outcome = await running.outcome()
    assert (outcome.outcome is AttemptOutcome.SUCCESS) is (case.after == "ended"), outcome.error_message
    return session


def _request(engine: Engine, home: Path, base_url: str, prompt: str, asks: dict[str, Any]) -> StartRequest:
    executable = executable_of(ADAPTERS[engine.provider].install, ENGINES_DIR)
    if executable is None:
        raise LookupError(f"{engine.provider} is not installed: make engines")
    return request_for(
        home, prompt, executable, model=engine.model, provider_options={"baseUrl": base_url},
        credential_env={engine.key: KEYS[engine.key]} if engine.key else {}, output_schema=asks.get("outputSchema"),
        engine_mode=EngineMode(asks.get("engineMode", "ask")),
    )  # fmt: skip


def compared(kept: Path, new: Recording) -> tuple[list[str], list[str]]:
    """What differs in substance from a kept case, and what is only new; raises ``LookupError`` where nothing is kept."""
    stdout, transcript = kept / "stdout.jsonl", kept / "transcript.jsonl"
    if stdout.exists():
        return differences(stdout.read_bytes(), new.stdout)
    if not transcript.exists():
        raise LookupError(f"nothing is kept in {kept.name}")
    moves = [json.loads(line) for line in transcript.read_text().splitlines()]
    said = [json.dumps(move["msg"]).encode() for move in moves if move["dir"] == "recv" and "msg" in move]
    return differences(b"\n".join(said), new.stdout)


class _Sameness:
    """The same names for what is another every time, in all bytes of one recording."""

    def __init__(self, home: Path) -> None:
        self._places = ((str(home / "workspace"), "/workspace"), (str(home), "/home/agent"), (str(ENGINES_DIR), "/engines"))
        self._ids: dict[bytes, bytes] = {}

    def __call__(self, data: bytes, is_ours: bool = False) -> bytes:
        """An id that we chose ourselves stays: it is the same every time, and we know it again."""
        for found in _UUID.findall(data) if is_ours else ():
            self._ids.setdefault(found, found)
        for place, name in self._places:
            data = data.replace(place.encode(), name.encode())
        data = _UUID.sub(self._id, _PORT.sub(b"127.0.0.1:8000", data))
        return _shortened(data) if len(data) > LONG_LINE else data

    def _id(self, found: re.Match[bytes]) -> bytes:
        number = len(self._ids) + 1
        return self._ids.setdefault(found[0], b"00000000-0000-4000-8000-%012d" % number)


def _shortened(line: bytes) -> bytes:
    """An engine's long texts (its commands, its skills) say nothing about its protocol."""
    try:
        said = json.loads(line)
    except ValueError:
        return line
    return json.dumps(_without_long_texts(said), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _without_long_texts(value: Any) -> Any:
    match value:
        case str() if len(value) > LONG_TEXT:
            return f"{value[:100]}… ({len(value)} characters)"
        case dict():
            return {name: _without_long_texts(each) for name, each in value.items()}
        case list():
            return [_without_long_texts(each) for each in value]
        case _:
            return value


def _told(move: Move) -> dict[str, Any]:
    """What the engine printed stands in files of its own."""
    said = {} if move.who in ("recv", "stderr") else {"msg": json.loads(move.data)}
    return {"dir": move.who, "t_ms": move.ms, **said}


def _data(payload: Payload) -> Data:
    return json.loads(payload.wire_json())
