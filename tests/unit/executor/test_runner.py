"""What a runner makes of a conversation that says too much, or fails: over a process that is only a listener and an exit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.base import STDOUT, Command, Emit, Outcome, Send, Step, Stream
from executor.attempts.plan import Plan
from executor.attempts.runner import Runner
from executor.events.journal import Journal, JournalHead
from executor.processes.engine_process import Launch
from shared.contracts.events import (
    AttemptOutcome,
    AttemptStarted,
    InteractionRequested,
    InteractionResolved,
    MessageCompleted,
    Timeouts,
)
from shared.contracts.interactions import AskedTool, Decision, InteractionType, Option, Reply
from shared.errors import ErrorCode, RunyardError
from tests.unit.executor.test_event_log import written

TOO_MUCH = "x" * 5_000_000


class Process:
    """A process without any: what was sent to it is kept."""

    is_paused = False
    pid = 1

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def close_input(self) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None: ...

    def has_waiting_output(self) -> bool:
        return False

    def input_stuck_seconds(self) -> float:
        return 0

    async def drain(self, is_hurried: Callable[[], bool]) -> None: ...

    async def read_out(self) -> None: ...


class Ground:
    """Plants that one process."""

    def __init__(self) -> None:
        self.process = Process()
        self.is_planted = asyncio.Event()

    async def plant(self, *_given: object) -> tuple[Process, object]:
        self.is_planted.set()
        return self.process, object()

    async def end_surely(self, *_given: object) -> None:
        if self.process.exit_code is None:
            self.process.exit_code = -9

    def forget(self, tree: object) -> None: ...


class Told:
    """A conversation in which the engine says just what a test feeds it."""

    command = Command(("/engine",))

    def __init__(self) -> None:
        self.next: list[Step] | Exception = []
        self.replies: list[tuple[str, Reply]] = []
        self.is_gone = False

    def opened(self) -> list[Step]:
        return []

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def end_of(self, stream: Stream) -> list[Step]:
        return []

    def answer(self, question_id: str, reply: Reply) -> list[Step]:
        if self.is_gone:
            raise RunyardError(ErrorCode.CONFLICT, "it is not open")
        self.replies.append((question_id, reply))
        return [Send(b"no\n")]

    def message(self, text: str) -> list[Step]:
        return []

    def interrupt(self) -> list[Step]:
        return []

    def ended(self, exit_code: int | None) -> Outcome:
        return Outcome(AttemptOutcome.ERROR, ErrorCode.ENGINE_EXIT_NONZERO)


class Scene:
    def __init__(self, folder: Path) -> None:
        self.engine, self.ground = Told(), Ground()
        self.journal = Journal.create(folder, JournalHead("run_1", 1, "scripted", "e", "i", "2026-01-01T00:00:00+00:00", "w"))
        timeouts = Timeouts(run_ms=60_000, idle_ms=60_000, stop_grace_ms=1000, first_event_ms=60_000, rule="test")
        started = AttemptStarted(executor_id="e", instance="i", provider="scripted", sandbox="none", timeouts=timeouts)
        plan = Plan(self.engine, Launch(("/engine",), {}, "/"), "run_1.1", (), started, 1 << 30)
        self.runner = Runner(plan, self.journal, self.ground, lambda: datetime.now(UTC))  # type: ignore[arg-type]

    def says(self, what: list[Step] | Exception) -> None:
        self.engine.next = what
        self.runner.on_bytes(STDOUT, b"...\n")

    def codes(self) -> list[str]:
        return [event["data"].get("code") or event["kind"] for event in written(self.journal) if event["kind"] != "log"]


@asynccontextmanager
async def running(scene: Scene) -> AsyncGenerator[None]:
    task = asyncio.create_task(scene.runner.run())
    async with asyncio.timeout(20):
        await scene.ground.is_planted.wait()
        while scene.runner.status == "starting":
            await asyncio.sleep(0)
        yield
        scene.ground.process.exit_code = scene.ground.process.exit_code or 1
        scene.runner.on_change()
        await task


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def nest(depth: int) -> dict[str, Any]:
    return {"in": nest(depth - 1)} if depth else {}


def asks(**more: Any) -> Emit:
    return Emit(InteractionRequested(question_id="q", type=InteractionType.PERMISSION, prompt="?", **more))


@pytest.mark.parametrize("much", [
    {"tool": AskedTool(name="shell", input={"command": TOO_MUCH})}, {"options": [Option(label=TOO_MUCH)]},
    {"schema_": {"title": TOO_MUCH}}, {"tool": AskedTool(name="own.tool", input=nest(300))},
])  # fmt: skip
async def test_a_question_that_nobody_could_read_is_declined_and_nobody_is_waited_for(scene: Scene, much: dict[str, Any]) -> None:
    async with running(scene):
        scene.says([asks(**much)])
        assert scene.runner.questions.open == []
        assert not scene.runner._limits.is_paused
        [(question_id, reply)] = scene.engine.replies
        assert (question_id, reply.decision) == ("q", Decision.DECLINE)
        assert scene.ground.process.sent == [b"no\n"]
    assert scene.codes() == ["attempt.started", "question_declined", "attempt.ended"]


async def test_a_question_too_large_that_was_withdrawn_since_is_left_alone(scene: Scene) -> None:
    async with running(scene):
        scene.engine.is_gone = True
        gone = Emit(InteractionResolved(question_id="q", how="withdrawn"))
        scene.says([asks(options=[Option(label=TOO_MUCH)]), gone, Emit(MessageCompleted(message_id="m", text="on"))])
    assert scene.codes() == ["attempt.started", "question_declined", "message.completed", "attempt.ended"]


async def test_a_question_that_can_be_told_if_cut_is_asked(scene: Scene) -> None:
    async with running(scene):
        scene.says([Emit(InteractionRequested(question_id="q", type=InteractionType.QUESTION, prompt=TOO_MUCH))])
        assert scene.runner.questions.open == ["q"]
        assert scene.runner._limits.is_paused
        assert scene.engine.replies == []


@pytest.mark.parametrize(("failure", "code"), [
    (RecursionError("deep"), ErrorCode.ENGINE_PROTOCOL_ERROR), (OverflowError("large"), ErrorCode.ENGINE_PROTOCOL_ERROR),
    (KeyError("ours"), ErrorCode.INTERNAL),
])  # fmt: skip
async def test_what_an_engine_said_beyond_reading_is_its_fault_and_no_error_of_ours(
    scene: Scene, failure: Exception, code: ErrorCode
) -> None:
    async with running(scene):
        scene.says(failure)
    assert scene.runner.ended is not None
    assert scene.runner.ended.error_code is code
