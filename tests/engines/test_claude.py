"""The real Claude Code under our adapter, against the model stub on loopback."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from shared.contracts.events import (
    AttemptOutcome,
    InteractionRequested,
    MessageCompleted,
    MessageDelta,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
)
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.contracts.providers import EngineMode, Provider
from shared.errors import ErrorCode
from tests.engines.drive import Driven, driven, request_for
from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine

CLAUDE = ADAPTERS[Provider.CLAUDE_CODE]
ENGINES = Path(__file__).parent.parent.parent / "engines"
KEY = "sk-never-shown"
ANSWER = "Hello from the model stub. The answer is 42."


@pytest.fixture(scope="session")
def executable() -> str:
    found = [path for pattern in CLAUDE.install.globs for path in ENGINES.glob(pattern)]
    assert found, "claude is not installed: python scripts/install_engines.py"
    return str(found[0])


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@asynccontextmanager
async def running(
    home: Path, executable: str, base_url: str, prompt: str, session: str | None = None, **more: Any
) -> AsyncGenerator[Driven]:
    fields: dict[str, Any] = {
        "provider_options": {"baseUrl": base_url},
        "credential_env": {"ANTHROPIC_API_KEY": KEY},
        "attempt": 1 if session is None else 2,
    }
    request = request_for(home, prompt, executable, **(fields | more))
    conversation = CLAUDE.start(request) if session is None else CLAUDE.resume(request, session)
    async with driven(conversation, request) as engine:
        yield engine


# ---- what it says ----


async def test_what_a_helper_says_is_marked_as_its_and_not_the_answer(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    task = {"description": "help", "prompt": "<<tool:touch sub.txt>>", "subagent_type": "general-purpose"}
    prompt = f"[[call:Task {json.dumps(task)}]]"
    async with running(tmp_path, executable, stub.base_url, prompt, engine_mode=EngineMode.FULL) as engine:
        outcome = await engine.outcome()
    [task, _] = engine.payloads(ToolStarted)
    assert [(each.name, each.parent_tool_id) for each in engine.payloads(ToolStarted)] == [
        ("Task", None),
        ("shell", task.tool_id),
    ]
    assert [(each.name, each.status) for each in engine.payloads(ToolCompleted)] == [
        ("shell", "completed"),
        ("Task", "completed"),
    ]
    assert "Done. The tool said" in engine.payloads(ToolCompleted)[1].output
    [helpers, answer] = engine.payloads(MessageCompleted)
    assert (helpers.parent_tool_id, helpers.final) == (task.tool_id, False)
    assert helpers.text.startswith("Done. The tool said")
    assert (answer.text, answer.final, answer.parent_tool_id) == (outcome.result, True, None)
    assert {each.parent_tool_id for each in engine.payloads(MessageDelta)} == {None}
    assert outcome.usage is not None
    assert outcome.usage.output_tokens == 4 * 42, "the helper's tokens were not counted"


# ---- what it asks ----


async def test_an_accepted_command_runs(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = "[[tool:printf made > made.txt; env | grep -c ^ANTHROPIC_API; exit 3]]"
    async with running(tmp_path, executable, stub.base_url, prompt) as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.tool is not None
        assert (asked.type, asked.tool.name) == (InteractionType.PERMISSION, "shell")
        assert "made.txt" in asked.tool.input["command"]
        await engine.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert (tmp_path / "workspace" / "made.txt").read_text() == "made"
    [done] = engine.payloads(ToolCompleted)
    assert (done.name, done.status, done.exit_code) == ("shell", "failed", 3)
    assert "0" in done.output.splitlines(), "the command saw the engine's credentials"


@pytest.mark.parametrize(("decision", "questions"), [(Decision.ACCEPT, 2), (Decision.ACCEPT_FOR_SESSION, 1)])
@pytest.mark.parametrize("command", ["touch made.txt", "printf x >> made.txt"])
async def test_a_command_accepted_for_the_session_is_not_asked_about_again(
    tmp_path: Path, executable: str, stub: ModelStub, command: str, decision: Decision, questions: int
) -> None:
    async with running(tmp_path, executable, stub.base_url, f"[[twice:{command}]]") as engine:
        for number in range(1, questions + 1):
            await engine.until(InteractionRequested, lambda asked, number=number: asked.question_id == f"q1-{number}")
            await engine.answer(f"q1-{number}", Reply(decision=decision))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert [each.exit_code for each in engine.payloads(ToolCompleted)] == [0, 0]
    assert len(engine.payloads(InteractionRequested)) == questions
    assert not (tmp_path / "workspace" / ".claude").exists(), "what was accepted for a session was written into the workspace"


@pytest.mark.parametrize("decision", [Decision.ACCEPT, Decision.DECLINE])
async def test_an_edit_is_asked_about_with_its_diff(tmp_path: Path, executable: str, stub: ModelStub, decision: Decision) -> None:
    edited = tmp_path / "workspace" / "stub.txt"
    async with running(tmp_path, executable, stub.base_url, f"[[edit:{edited}]]") as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.tool is not None
        assert asked.tool.name == "edit"
        [change] = asked.tool.input["changes"]
        assert (change["path"], change["diff"]) == (str(edited), "written by the model stub")
        await engine.answer(asked.question_id, Reply(decision=decision))
        await engine.outcome()
    assert edited.exists() is (decision is Decision.ACCEPT)


@pytest.mark.parametrize(("decision", "writes"), [(Decision.ACCEPT, True), (Decision.DECLINE, False)])
async def test_a_plan_is_handed_in_and_carried_out_when_it_is_accepted(
    tmp_path: Path, executable: str, stub: ModelStub, decision: Decision, writes: bool
) -> None:
    prompt = '[[call:ExitPlanMode {"plan": "1. look 2. act"}]]'
    async with running(tmp_path, executable, stub.base_url, prompt, engine_mode=EngineMode.PLAN) as engine:
        asked = await engine.until(InteractionRequested)
        assert (asked.type, asked.prompt) == (InteractionType.PLAN, "1. look 2. act")
        await engine.answer(asked.question_id, Reply(decision=decision))
        await engine.until(MessageDelta)
        await engine.message("[[edit:made.txt]]")
        if writes:
            edit = await engine.until(InteractionRequested, lambda asked: asked.type is InteractionType.PERMISSION)
            await engine.answer(edit.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert (tmp_path / "workspace" / "made.txt").exists() is writes


@pytest.mark.parametrize(("mode", "asks", "writes"), [
    (EngineMode.PLAN, False, False),
    (EngineMode.READ_ONLY, False, False),
    (EngineMode.ASK, True, True),
    (EngineMode.AUTO_EDIT, False, True),
    (EngineMode.FULL, False, True),
])  # fmt: skip
async def test_an_engine_mode_decides_what_is_asked_and_what_is_written(
    tmp_path: Path, executable: str, stub: ModelStub, mode: EngineMode, asks: bool, writes: bool
) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[edit:made.txt]]", engine_mode=mode) as engine:
        if asks:
            asked = await engine.until(InteractionRequested)
            await engine.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        await engine.outcome()
    assert bool(engine.payloads(InteractionRequested)) is asks
    assert (tmp_path / "workspace" / "made.txt").exists() is writes
    assert [each.status for each in engine.payloads(ToolCompleted)] == ["completed" if writes else "declined"]


async def test_in_full_mode_a_command_runs_unasked(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = f"[[tool:touch {tmp_path}/outside.txt]]"
    async with running(tmp_path, executable, stub.base_url, prompt, engine_mode=EngineMode.FULL) as engine:
        await engine.outcome()
    assert engine.payloads(InteractionRequested) == []
    assert (tmp_path / "outside.txt").exists()


# ---- further messages ----


async def test_a_message_while_a_command_runs_joins_the_turn(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = "[[tool:touch began; sleep 1]]"
    async with running(tmp_path, executable, stub.base_url, prompt) as engine:
        asked = await engine.until(InteractionRequested)
        await engine.message("mind the kumquat")
        await engine.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert len(stub.requests) == 2
    assert "mind the kumquat" in str(stub.requests[-1]["body"])


# ---- later ----


async def test_a_session_is_resumed_that_was_killed_before_it_said_anything(
    tmp_path: Path, executable: str, stub: ModelStub
) -> None:
    async with running(tmp_path, executable, stub.base_url, "remember the word kumquat [[slow:400]]") as first:
        await first.until(SessionStarted)
        os.kill(first.process.pid, signal.SIGKILL)
        await first.outcome()
    session = first.payloads(SessionStarted)[0].engine_session
    async with running(tmp_path, executable, stub.base_url, "[[text]]", session=session) as second:
        outcome = await second.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER)
    assert "kumquat" in str(stub.requests[-1]["body"])


async def test_a_session_that_does_not_exist_is_not_found(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    nobody = "01a1fbd3-c728-4ff3-ac5b-aef2c48661ef"
    async with running(tmp_path, executable, stub.base_url, "hi", session=nobody) as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.NOT_FOUND), outcome.error_message
