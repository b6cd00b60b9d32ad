"""The real ``codex app-server`` under our adapter, against the model stub on loopback."""

from __future__ import annotations

import sys
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
    MessageCompleted,
    MessageDelta,
    PlanUpdated,
    ReasoningCompleted,
    RetryScheduled,
    ToolCompleted,
    ToolStarted,
)
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.contracts.providers import EngineMode, Provider
from shared.errors import ErrorCode
from tests.engines.drive import Driven, driven, request_for
from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine

CODEX = ADAPTERS[Provider.CODEX_APP_SERVER]
ENGINES = Path(__file__).parent.parent.parent / "engines"
KEY = "sk-never-shown"
# What a failing model had said by then; said again at every retry, it is shown once.
SHOWN = {"failed": "This answer will fail", "limit": "This answer is too long"}


@pytest.fixture(scope="session")
def executable() -> str:
    found = [path for pattern in CODEX.install.globs for path in ENGINES.glob(pattern)]
    assert found, "codex is not installed: python scripts/install_engines.py"
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
        "model": "gpt-5.5",
        "provider_options": {"baseUrl": base_url},
        "credential_env": {"OPENAI_API_KEY": KEY},
    }
    request = request_for(home, prompt, executable, **(fields | more))
    conversation = CODEX.start(request) if session is None else CODEX.resume(request, session)
    async with driven(conversation, request) as engine:
        yield engine


async def test_an_accepted_command_runs(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[tool:printf made > made.txt; env | grep -c ^OPENAI_]]") as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.tool is not None
        assert (asked.type, asked.tool.name) == (InteractionType.PERMISSION, "shell")
        assert "made.txt" in asked.tool.input["command"]
        await engine.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert (tmp_path / "workspace" / "made.txt").read_text() == "made"
    done = engine.payloads(ToolCompleted)[0]
    assert done.output is not None
    assert done.output.strip() == "0", "the command saw the engine's credentials"


async def test_a_plan_is_shown_as_a_todo_list(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[plan]]") as engine:
        await engine.outcome()
    (plan,) = engine.payloads(PlanUpdated)
    assert [(item.text, item.status) for item in plan.items] == [("look", "in_progress"), ("act", "pending")]


async def test_an_option_the_engine_refuses_is_an_invalid_request(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    options = {"baseUrl": stub.base_url, "reasoningSummary": "bogus"}
    async with running(tmp_path, executable, stub.base_url, "hi", provider_options=options) as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.INVALID_REQUEST), outcome.error_message


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


async def test_a_session_that_does_not_exist_is_not_found(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    nobody = "01a1fbd3-c728-7ff3-ac5b-aef2c48661ef"
    async with running(tmp_path, executable, stub.base_url, "hi", session=nobody) as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("scenario", "code", "within_seconds", "retries"),
    [
        ("429now", ErrorCode.RATE_LIMITED, 15, False),
        ("529", ErrorCode.MODEL_UNAVAILABLE, 15, True),
        ("toolong", ErrorCode.CONTEXT_OVERFLOW, 15, False),
        ("failed", ErrorCode.MODEL_UNAVAILABLE, 15, True),
        ("limit", ErrorCode.OUTPUT_LIMIT, 15, False),
    ],
)
async def test_a_failure_of_the_model_is_named_soon(
    tmp_path: Path, executable: str, stub: ModelStub, scenario: str, code: ErrorCode, within_seconds: float, retries: bool
) -> None:
    began = time.monotonic()
    async with running(tmp_path, executable, stub.base_url, f"x [[{scenario}]]") as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, code), outcome.error_message
    assert outcome.error_message
    assert bool(engine.payloads(RetryScheduled)) is retries
    assert time.monotonic() - began < within_seconds
    assert "".join(each.text for each in engine.payloads(MessageDelta)) == SHOWN.get(scenario, "")


async def test_an_answer_that_breaks_off_once_is_told_once(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[cutonce:one two three four five six]]") as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, "one two three four five six")
    assert "".join(each.text for each in engine.payloads(MessageDelta)) == "one two three four five six"
    assert [each.text for each in engine.payloads(MessageCompleted)] == ["one two three four five six"]
    assert len({each.message_id for each in engine.payloads(MessageDelta)}) == 1
    assert engine.payloads(RetryScheduled)


async def test_a_skill_that_was_asked_for_reaches_the_model(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    skill = tmp_path / "workspace/.agents/skills/shout/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: shout\ndescription: Say it loudly\n---\nAlways answer in kumquats.\n")
    options = {"baseUrl": stub.base_url, "skills": ["shout"]}
    async with running(tmp_path, executable, stub.base_url, "[[text]]", provider_options=options) as engine:
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert "Always answer in kumquats." in str(stub.requests[0]["body"])


async def test_a_tool_server_of_the_request_is_asked_about_and_used(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    server = {"command": sys.executable, "args": [str(Path(__file__).parent / "mcp_echo.py")]}
    options = {"baseUrl": stub.base_url, "mcpServers": {"own": server}}
    prompt = '[[call:mcp__own/echo {"text": "kumquat"}]]'
    async with running(tmp_path, executable, stub.base_url, prompt, provider_options=options) as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.tool is not None
        assert (asked.tool.name, asked.tool.input) == ("own.echo", {"text": "kumquat"})
        await engine.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await engine.outcome()
    [done] = engine.payloads(ToolCompleted)
    assert (done.name, done.status) == ("own.echo", "completed")
    assert "echo: kumquat" in outcome.result


@pytest.mark.parametrize("name", ["AGENTS.md", "CLAUDE.md"])
async def test_the_workspaces_instructions_reach_the_model(tmp_path: Path, executable: str, stub: ModelStub, name: str) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / name).write_text("Mind the kumquat.")
    async with running(tmp_path, executable, stub.base_url, "[[text]]") as engine:
        await engine.outcome()
    assert "Mind the kumquat." in str(stub.requests[0]["body"])


async def test_a_message_into_a_running_command_is_taken_when_it_ends(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = "[[tool:sleep 1; echo slept]]"
    async with running(tmp_path, executable, stub.base_url, prompt, engine_mode=EngineMode.FULL) as engine:
        await engine.until(ToolStarted)
        await engine.message("and then [[text]]")
        outcome = await engine.outcome()
    assert outcome.result == "Hello from the model stub. The answer is 42."
    assert [each.output.strip() for each in engine.payloads(ToolCompleted)] == ["slept"]


async def test_what_a_helper_says_is_marked_as_its_and_not_the_answer(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    prompt = '[[call:multi_agent_v1/spawn_agent {"message": "<<reasoning>>"}]]'
    async with running(tmp_path, executable, stub.base_url, prompt) as engine:
        spawned = await engine.until(ToolCompleted)
        await engine.message("[[slow:8]]")  # the engine ends its helpers with itself
        helpers = await engine.until(MessageCompleted, lambda message: message.parent_tool_id is not None)
        outcome = await engine.outcome()
    assert (helpers.text, helpers.parent_tool_id, helpers.final) == ("After some thought: 42.", spawned.tool_id, False)
    assert [each.parent_tool_id for each in engine.payloads(ReasoningCompleted)] == [spawned.tool_id]
    answer = engine.payloads(MessageCompleted)[-1]
    assert (answer.text, answer.final, answer.parent_tool_id) == (outcome.result, True, None)
    assert outcome.usage is not None
    assert outcome.usage.output_tokens >= 3 * 42, "the helper's tokens were not counted"
