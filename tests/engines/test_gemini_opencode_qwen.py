"""The real gemini-cli, qwen-code and opencode under the one ACP client, against the model stub: one body, a row an engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from shared.contracts.events import (
    AttemptOutcome,
    InteractionRequested,
    InteractionResolved,
    MessageCompleted,
    MessageDelta,
    PlanUpdated,
    ReasoningCompleted,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
)
from shared.contracts.interactions import Decision, InteractionType, Reply
from shared.contracts.providers import EngineMode
from shared.errors import ErrorCode
from tests.engines import gemini_opencode_qwen as rows
from tests.engines.drive import PATIENCE_SECONDS
from tests.engines.gemini_opencode_qwen import ANSWER, KEY, Engine, tools_in

pytestmark = pytest.mark.engine
row, executable, stub, engine = rows.row, rows.executable, rows.stub, rows.engine


async def test_text_is_streamed_and_is_the_result(engine: Engine) -> None:
    async with engine.running("hi [[text]]") as driven:
        outcome = await driven.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER), outcome.error_message
    assert len(driven.payloads(MessageDelta)) > 3
    assert "".join(each.text for each in driven.payloads(MessageDelta)) == ANSWER
    assert [(each.text, each.final) for each in driven.payloads(MessageCompleted)] == [(ANSWER, True)]
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == engine.row.counts
    assert KEY not in str(list(engine.stub.requests))
    assert KEY.encode() not in b"".join(driven.raw.values())


async def test_reasoning_is_told_apart_from_the_answer(engine: Engine) -> None:
    async with engine.running("[[reasoning]]") as driven:
        outcome = await driven.outcome()
    assert outcome.result == "After some thought: 42."
    assert "First I look. Then I answer." in "".join(each.text for each in driven.payloads(ReasoningCompleted))


async def test_a_prompt_is_never_a_command_of_the_engines_own(engine: Engine) -> None:
    async with engine.running("/help [[text]]") as driven:
        outcome = await driven.outcome()
    assert outcome.result == ANSWER


async def test_an_accepted_command_runs(engine: Engine) -> None:
    async with engine.running("[[tool:printf made > made.txt; cat made.txt]]") as driven:
        asked = await driven.until(InteractionRequested)
        assert asked.tool is not None
        assert (asked.type, asked.tool.name) == (InteractionType.PERMISSION, "shell")
        assert "made.txt" in asked.tool.input["command"]
        await driven.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS, outcome.error_message
    assert outcome.result.startswith("Done. The tool said ")
    assert "made" in outcome.result
    assert (engine.workspace / "made.txt").read_text() == "made"
    assert [each.name for each in driven.payloads(ToolStarted)] == ["shell"]
    assert [(each.name, each.status) for each in driven.payloads(ToolCompleted)] == [("shell", "completed")]


async def test_a_declined_command_does_not_run_and_the_reason_reaches_the_model(engine: Engine) -> None:
    async with engine.running("[[tool:touch made.txt]]") as driven:
        asked = await driven.until(InteractionRequested)
        await driven.answer(asked.question_id, Reply(decision=Decision.DECLINE, message="use the other file"))
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS, outcome.error_message
    assert not (engine.workspace / "made.txt").exists()
    assert [each.status for each in driven.payloads(ToolCompleted)] == ["declined"]
    assert "use the other file" in str(engine.asked()[-1]["body"])
    assert [each.final for each in driven.payloads(MessageCompleted)][-1] is True


async def test_decline_and_stop_ends_the_run(engine: Engine) -> None:
    async with engine.running("[[tool:touch made.txt]]") as driven:
        asked = await driven.until(InteractionRequested)
        await driven.answer(asked.question_id, Reply(decision=Decision.DECLINE_AND_STOP))
        outcome = await driven.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED)
    assert not (engine.workspace / "made.txt").exists()


@pytest.mark.parametrize(("decision", "questions"), [(Decision.ACCEPT, 2), (Decision.ACCEPT_FOR_SESSION, 1)])
async def test_a_command_accepted_for_the_session_is_not_asked_about_again(
    engine: Engine, decision: Decision, questions: int
) -> None:
    async with engine.running("[[twice:touch made.txt]]") as driven:
        for number in range(questions):
            asked = await driven.until(InteractionRequested, lambda each, n=number: each.question_id == f"q1-{n + 1}")
            await driven.answer(asked.question_id, Reply(decision=decision))
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert len(driven.payloads(ToolCompleted)) == 2
    assert len(driven.payloads(InteractionRequested)) == questions


@pytest.mark.parametrize("decision", [Decision.ACCEPT, Decision.DECLINE])
async def test_an_edit_is_asked_about_with_its_content(engine: Engine, decision: Decision) -> None:
    edited = engine.workspace / "stub.txt"
    async with engine.running(f"[[edit:{edited}]]") as driven:
        asked = await driven.until(InteractionRequested)
        assert asked.tool is not None
        assert asked.tool.name == "edit"
        [change] = asked.tool.input["changes"]
        assert (change["path"], change["kind"], change["diff"].strip()) == (str(edited), "add", "written by the model stub")
        await driven.answer(asked.question_id, Reply(decision=decision))
        await driven.outcome()
    assert edited.exists() is (decision is Decision.ACCEPT)


@pytest.mark.parametrize(("mode", "asks", "writes"), [
    (EngineMode.PLAN, False, False),
    (EngineMode.READ_ONLY, False, False),
    (EngineMode.AUTO_EDIT, False, True),
    (EngineMode.FULL, False, True),
])  # fmt: skip
async def test_an_engine_mode_decides_what_is_asked_and_what_is_written(
    engine: Engine, mode: EngineMode, asks: bool, writes: bool
) -> None:
    edited = engine.workspace / "made.txt"
    async with engine.running(f"[[edit:{edited}]]", engine_mode=mode) as driven:
        await driven.outcome()
    assert bool(driven.payloads(InteractionRequested)) is asks
    assert edited.exists() is writes


@pytest.mark.needs("questions")
async def test_a_question_reaches_a_person_and_the_answer_the_model(engine: Engine) -> None:
    async with engine.running("[[question]]") as driven:
        asked = await driven.until(InteractionRequested)
        assert (asked.type, asked.prompt) == (InteractionType.QUESTION, "Tabs or spaces?")
        assert [option.label for option in asked.options] == ["Tabs", "Spaces"]
        await driven.answer(asked.question_id, Reply(answer="Spaces"))
        outcome = await driven.outcome()
    assert outcome.result is not None, outcome.error_message
    assert "Spaces" in outcome.result


@pytest.mark.needs("plan")
async def test_a_plan_is_shown_as_a_todo_list(engine: Engine) -> None:
    async with engine.running("[[plan]]") as driven:
        await driven.outcome()
    plan = driven.payloads(PlanUpdated)[-1]
    assert [(item.text, item.status) for item in plan.items] == [("look", "in_progress"), ("act", "pending")]


async def test_a_tool_of_an_mcp_server_is_asked_about_and_runs(engine: Engine) -> None:
    servers = {"box": {"command": sys.executable, "args": [str(Path(__file__).parent / "mcp_echo.py")]}}
    call = f'[[call:{engine.row.mcp_tool} {{"text": "pomelo"}}]]'
    options = {"baseUrl": engine.stub.base_url, "mcpServers": servers}
    async with engine.running(call, provider_options=options) as driven:
        asked = await driven.until(InteractionRequested)
        await driven.answer(asked.question_id, Reply(decision=Decision.ACCEPT))
        outcome = await driven.outcome()
    assert "echo: pomelo" in str(outcome.result)


async def test_an_interrupt_ends_text_at_once(engine: Engine) -> None:
    async with engine.running("[[slow:400]]") as driven:
        await driven.until(MessageDelta)
        asked_at = time.monotonic()
        await driven.interrupt()
        outcome = await driven.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED)
    assert time.monotonic() - asked_at < 10


async def test_an_interrupt_ends_a_running_command(engine: Engine) -> None:
    # an engine refuses what does nothing but sleep
    async with engine.running("[[tool:touch began; sleep 55]]", engine_mode=EngineMode.FULL) as driven:
        await driven.until(ToolStarted)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (engine.workspace / "began").exists():
                await asyncio.sleep(0.02)  # polling a condition with a bound
        await driven.interrupt()
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.CANCELED
    assert [each.status for each in driven.payloads(ToolCompleted)] == ["canceled"]


async def test_an_interrupt_takes_the_question_along(engine: Engine) -> None:
    async with engine.running("[[tool:touch x]]") as driven:
        await driven.until(InteractionRequested)
        await driven.interrupt()
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.CANCELED
    assert driven.payloads(InteractionResolved) == []
    assert not (engine.workspace / "x").exists()


async def test_a_message_is_taken_when_the_prompt_is_over(engine: Engine) -> None:
    async with engine.running("[[slow:6]]") as driven:
        await driven.until(MessageDelta)
        await driven.message("now say [[text]]")
        outcome = await driven.outcome()
    assert outcome.result == ANSWER
    told = driven.payloads(MessageCompleted)
    assert [(each.text, each.final) for each in told] == [("".join(f"word{n} " for n in range(6)), False), (ANSWER, True)]


async def test_a_session_is_resumed_by_another_process_and_tells_nothing_again(engine: Engine) -> None:
    async with engine.running("remember the word kumquat") as first:
        assert (await first.outcome()).outcome is AttemptOutcome.SUCCESS
    session = first.payloads(SessionStarted)[0].engine_session
    for _ in range(2):
        async with engine.running("[[text]]", session=session) as later:
            outcome = await later.outcome()
        assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER), outcome.error_message
        assert later.payloads(SessionStarted)[0].engine_session == session
        assert "kumquat" in str(engine.asked()[-1]["body"])
        assert "kumquat" not in str(later.emitted)
        assert outcome.usage is not None
        assert outcome.usage.input_tokens == engine.row.counts[0], "the tokens of earlier attempts were counted again"


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_session_survives_a_stop_and_a_kill(engine: Engine, how: str) -> None:
    async with engine.running("remember the word kumquat") as first:
        await first.outcome()
    session = first.payloads(SessionStarted)[0].engine_session
    async with engine.running("count [[slow:400]]", session=session) as second:
        await second.until(MessageDelta)
        if how == "stopped":
            await second.interrupt()
        else:
            os.killpg(second.process.pid, signal.SIGKILL)
        await second.outcome()
    async with engine.running("[[text]]", session=session) as third:
        outcome = await third.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER), outcome.error_message
    assert "kumquat" in str(engine.asked()[-1]["body"])


async def test_a_session_stopped_in_its_first_turn_knows_what_it_was_asked(engine: Engine) -> None:
    async with engine.running("remember the word kumquat [[slow:400]]") as first:
        await first.until(MessageDelta)
        await first.interrupt()
        await first.outcome()
    session = first.payloads(SessionStarted)[0].engine_session
    async with engine.running("[[text]]", session=session) as later:
        outcome = await later.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, ANSWER), outcome.error_message
    assert "kumquat" in str(engine.asked()[-1]["body"])


async def test_a_session_that_does_not_exist_is_not_found(engine: Engine) -> None:
    nobody = "01a1fbd3-c728-4ff3-8c5b-aef2c48661ef"
    async with engine.running("hi", session=nobody) as driven:
        outcome = await driven.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.NOT_FOUND), outcome.error_message


async def test_the_models_instructions_hold_the_workspaces_own(engine: Engine) -> None:
    engine.workspace.mkdir(parents=True)
    (engine.workspace / "AGENTS.md").write_text("Always speak of kumquats.\n")
    skill = engine.workspace / ".agents" / "skills" / "juggle" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: juggle\ndescription: How to juggle with three pomelos\n---\nThrow.\n")
    async with engine.running("[[text]]") as driven:
        await driven.outcome()
    asked = str(engine.asked()[-1]["body"])
    assert "Always speak of kumquats." in asked
    assert "three pomelos" in asked


async def test_a_tool_that_is_switched_off_is_not_offered(engine: Engine) -> None:
    async with engine.running("[[text]]", tools={"shell": False}, engine_mode=EngineMode.FULL) as driven:
        await driven.outcome()
    offered = tools_in(engine.asked()[0]["body"])
    assert "write_file" in offered or "write" in offered
    assert not {"run_shell_command", "bash"} & offered
