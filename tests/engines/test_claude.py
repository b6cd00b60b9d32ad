"""The real Claude Code under our adapter, against the model stub on loopback."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from shared.contracts.events import (
    AttemptOutcome,
    InteractionRequested,
    InteractionResolved,
    MessageCompleted,
    MessageDelta,
    PlanUpdated,
    ReasoningCompleted,
    ReasoningDelta,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
    UsageUpdated,
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


async def test_text_is_streamed_and_is_the_result(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "hi [[text]]", model="claude-sonnet-4-5") as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER)
    assert "".join(each.text for each in engine.payloads(MessageDelta)) == outcome.result
    assert [(each.text, each.final) for each in engine.payloads(MessageCompleted)] == [(outcome.result, True)]
    assert len({each.message_id for each in [*engine.payloads(MessageDelta), *engine.payloads(MessageCompleted)]}) == 1
    assert len(engine.payloads(SessionStarted)) == 1
    assert stub.requests[0]["headers"]["x-api-key"] == "present"
    assert stub.requests[0]["body"]["model"] == "claude-sonnet-4-5"
    assert KEY not in str(list(stub.requests))


async def test_tokens_and_cost_are_those_of_the_attempt(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "hi [[text]]") as engine:
        outcome = await engine.outcome()
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.cached_input_tokens, outcome.usage.output_tokens) == (2000, 800, 42)
    assert outcome.usage.cost_usd is not None
    assert outcome.usage.cost_usd > 0
    assert engine.payloads(UsageUpdated)[-1].usage == outcome.usage


async def test_reasoning_is_told_apart_from_the_answer(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[reasoning]]") as engine:
        outcome = await engine.outcome()
    assert outcome.result == "After some thought: 42."
    assert "".join(each.text for each in engine.payloads(ReasoningDelta)) == "First I look. Then I answer."
    assert [each.text for each in engine.payloads(ReasoningCompleted)] == ["First I look. Then I answer."]


async def test_an_answer_in_a_schemas_form_is_json(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    async with running(tmp_path, executable, stub.base_url, "[[json]]", output_schema=schema) as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, {"answer": 42})
    assert [(json.loads(each.text), each.final) for each in engine.payloads(MessageCompleted)] == [({"answer": 42}, True)]
    assert engine.payloads(ToolStarted) == []


async def test_tasks_are_shown_as_a_plan(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[plan]]") as engine:
        await engine.outcome()
    plan = engine.payloads(PlanUpdated)[-1]
    assert [(item.text, item.status) for item in plan.items] == [("look", "in_progress"), ("act", "pending")]
    assert engine.payloads(ToolStarted) == []


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


async def test_a_declined_command_does_not_run_and_the_reason_reaches_the_model(
    tmp_path: Path, executable: str, stub: ModelStub
) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[tool:touch made.txt]]") as engine:
        asked = await engine.until(InteractionRequested)
        await engine.answer(asked.question_id, Reply(decision=Decision.DECLINE, message="use the other file"))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert not (tmp_path / "workspace" / "made.txt").exists()
    assert [each.status for each in engine.payloads(ToolCompleted)] == ["declined"]
    assert "use the other file" in str(stub.requests[-1]["body"])


async def test_decline_and_stop_ends_the_run(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[tool:touch made.txt]]") as engine:
        asked = await engine.until(InteractionRequested)
        await engine.answer(asked.question_id, Reply(decision=Decision.DECLINE_AND_STOP))
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED)
    assert [each.status for each in engine.payloads(ToolCompleted)] == ["declined"]
    assert len(stub.requests) == 1


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


async def test_a_question_reaches_a_person_and_the_answer_the_model(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[question]]") as engine:
        asked = await engine.until(InteractionRequested)
        assert (asked.type, asked.prompt) == (InteractionType.QUESTION, "Tabs or spaces?")
        assert [option.label for option in asked.options] == ["Tabs", "Spaces"]
        await engine.answer(asked.question_id, Reply(answer="Spaces"))
        outcome = await engine.outcome()
    assert "Spaces" in outcome.result
    assert engine.payloads(ToolStarted) == []


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


# ---- stop and further messages ----


async def test_an_interrupt_ends_text_at_once(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[slow:400]]") as engine:
        await engine.until(MessageDelta)
        asked_at = time.monotonic()
        await engine.interrupt()
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED)
    assert time.monotonic() - asked_at < 5


async def test_an_interrupt_ends_a_running_command(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = "[[tool:echo $$ > pid; sleep 55]]"
    async with running(tmp_path, executable, stub.base_url, prompt, engine_mode=EngineMode.FULL) as engine:
        await engine.until(ToolStarted)
        await engine.interrupt()
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.CANCELED
    assert [each.status for each in engine.payloads(ToolCompleted)] == ["canceled"]


async def test_an_interrupt_takes_the_question_along(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[tool:touch x]]") as engine:
        await engine.until(InteractionRequested)
        await engine.interrupt()
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.CANCELED
    assert engine.payloads(InteractionResolved) == []


async def test_a_message_while_text_streams_is_answered_after_it(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[slow:6]]") as engine:
        await engine.until(MessageDelta)
        await engine.message("and then say [[text]]")
        outcome = await engine.outcome()
    assert outcome.result == ANSWER
    slow = "".join(f"word{n} " for n in range(6))
    assert [(each.text, each.final) for each in engine.payloads(MessageCompleted)] == [(slow, False), (ANSWER, True)]


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


async def test_a_session_is_resumed_by_another_process(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "remember the word kumquat") as first:
        await first.outcome()
    session = first.payloads(SessionStarted)[0].engine_session
    async with running(tmp_path, executable, stub.base_url, "[[text]]", session=session) as second:
        outcome = await second.outcome()
    assert outcome.result == ANSWER
    assert second.payloads(SessionStarted)[0].engine_session == session
    assert "kumquat" in str(stub.requests[-1]["body"])
    assert outcome.usage is not None
    assert outcome.usage.output_tokens == 42, "the tokens of the first attempt were counted again"


@pytest.mark.parametrize("how", ["stopped", "killed", "killed at once"])
async def test_a_session_is_resumed_after_its_process_was(tmp_path: Path, executable: str, stub: ModelStub, how: str) -> None:
    async with running(tmp_path, executable, stub.base_url, "remember the word kumquat [[slow:400]]") as first:
        await first.until(SessionStarted if how == "killed at once" else MessageDelta)
        if how == "stopped":
            await first.interrupt()
        else:
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
