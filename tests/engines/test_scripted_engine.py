"""The scripted engine, for real: every step of a script, as a caller sees it."""

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
from executor.adapters.base import Outcome
from shared.contracts.events import (
    AttemptOutcome,
    Diagnostic,
    InteractionRequested,
    MessageCompleted,
    MessageDelta,
    PlanUpdated,
    RawStderr,
    RawStdout,
    ReasoningCompleted,
    SessionStarted,
    ToolCompleted,
    ToolStarted,
    UsageUpdated,
)
from shared.contracts.interactions import Decision, Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from tests.engines.drive import Driven, driven, request_for

SCRIPTED = ADAPTERS[Provider.SCRIPTED]


@asynccontextmanager
async def playing(
    home: Path, *steps: Any, session: str | None = None, env: dict[str, str] | None = None
) -> AsyncGenerator[Driven]:
    request = request_for(home, f"Please play {json.dumps({'script': list(steps)})} for me")
    conversation = SCRIPTED.start(request) if session is None else SCRIPTED.resume(request, session)
    async with driven(conversation, request, env) as engine:
        yield engine


async def played(home: Path, *steps: Any, session: str | None = None) -> tuple[Driven, Outcome]:
    async with playing(home, *steps, session=session) as engine:
        return engine, await engine.outcome()


def texts(engine: Driven) -> list[str]:
    return [message.text for message in engine.payloads(MessageCompleted)]


async def test_a_prompt_without_a_script_is_echoed(tmp_path: Path) -> None:
    request = request_for(tmp_path, 'hi {"script": 3} and {not json')
    async with driven(SCRIPTED.start(request), request) as engine:
        outcome = await engine.outcome()
    assert texts(engine) == ['hi {"script": 3} and {not json']
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, 'hi {"script": 3} and {not json')


async def test_a_script_in_an_earlier_message_is_not_played_again(tmp_path: Path) -> None:
    old = Message(content='{"script": [{"say": "old"}]}')
    request = request_for(tmp_path, "", messages=[old, Message(role="assistant", content="old"), Message(content="new")])
    async with driven(SCRIPTED.start(request), request) as engine:
        await engine.outcome()
    assert texts(engine) == [request.prompt()]


async def test_each_say_is_one_message_and_only_the_last_is_final(tmp_path: Path) -> None:
    engine, outcome = await played(tmp_path, {"say": "one"}, {"repeat": {"count": 3, "say": "tick {i}"}}, {"usage": {}})
    messages = engine.payloads(MessageCompleted)
    assert [message.text for message in messages] == ["one", "tick 1", "tick 2", "tick 3"]
    assert [message.final for message in messages] == [False, False, False, True]
    assert len({message.message_id for message in messages}) == 4
    assert outcome.result == "tick 3"


async def test_a_streamed_message_is_its_deltas(tmp_path: Path) -> None:
    engine, _ = await played(
        tmp_path, {"deltas": ["a", "b"], "everyMs": 1}, {"ticks": {"count": 3, "everyMs": 1, "say": "{i},"}}, {"ticks": 2}
    )
    assert texts(engine) == ["ab", "1,2,3,", "tick 1 tick 2 "]
    for message in engine.payloads(MessageCompleted):
        deltas = [delta.text for delta in engine.payloads(MessageDelta) if delta.message_id == message.message_id]
        assert "".join(deltas) == message.text


async def test_reasoning_tools_plans_and_usage_are_reported(tmp_path: Path) -> None:
    engine, outcome = await played(
        tmp_path,
        {"think": "hm"},
        {"tool": {"name": "shell", "input": {"command": "ls"}, "output": "x" * 70_000, "status": "failed"}},
        {"plan": ["look", {"text": "act", "status": "in_progress"}]},
        {"usage": {"inputTokens": 7, "outputTokens": 3}},
    )
    assert [each.text for each in engine.payloads(ReasoningCompleted)] == ["hm"]
    started, completed = engine.payloads(ToolStarted)[0], engine.payloads(ToolCompleted)[0]
    assert (started.tool_id, started.name, started.input) == (completed.tool_id, "shell", {"command": "ls"})
    assert (completed.status, len(completed.output), completed.truncated) == ("failed", 65536, True)
    assert [(item.text, item.status) for item in engine.payloads(PlanUpdated)[0].items] == [
        ("look", "pending"),
        ("act", "in_progress"),
    ]
    assert engine.payloads(UsageUpdated)[0].usage == outcome.usage
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (7, 3)
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, None)


@pytest.mark.parametrize(
    ("step", "reply", "said"),
    [
        ({"ask": {"prompt": "which?", "options": ["a", {"label": "b"}]}}, Reply(answer="b"), "reply: b"),
        ({"ask": {"prompt": "which?"}}, Reply(answer=["a", "b"]), "reply: a, b"),
        ({"ask": {"prompt": "which?"}}, Reply(answer={"q": "a"}), 'reply: {"q":"a"}'),
        ({"permission": {"tool": "shell", "input": {"command": "ls"}}}, Reply(decision=Decision.ACCEPT), "reply: accept"),
        ({"permission": {"tool": "shell"}}, Reply(decision=Decision.DECLINE, message="no"), "reply: decline"),
    ],
)
async def test_a_question_waits_for_its_reply_and_says_it(tmp_path: Path, step: Any, reply: Reply, said: str) -> None:
    async with playing(tmp_path, {"say": "first"}, step) as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.question_id == "q1-1"
        await engine.answer(asked.question_id, reply)
        await engine.outcome()
    assert texts(engine) == ["first", said]


async def test_a_question_is_answered_once(tmp_path: Path) -> None:
    async with playing(tmp_path, {"ask": {"prompt": "a?"}}, {"ask": {"prompt": "b?"}}) as engine:
        await engine.until(InteractionRequested)
        await engine.answer("q1-1", Reply(answer="x"))
        with pytest.raises(RunyardError, match="conflict"):
            await engine.answer("q1-1", Reply(answer="x"))
        await engine.until(InteractionRequested, lambda asked: asked.question_id == "q1-2")
        await engine.answer("q1-2", Reply(answer="y"))
        await engine.outcome()
    assert texts(engine) == ["reply: x", "reply: y"]


async def test_decline_and_stop_ends_the_script_as_canceled(tmp_path: Path) -> None:
    async with playing(tmp_path, {"permission": {"tool": "shell"}}, {"say": "never"}) as engine:
        await engine.until(InteractionRequested)
        await engine.answer("q1-1", Reply(decision=Decision.DECLINE_AND_STOP))
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.CANCELED, ErrorCode.USER_CANCELED)
    assert texts(engine) == []


async def test_an_engine_that_is_killed_names_the_signal(tmp_path: Path) -> None:
    async with playing(tmp_path, {"ask": {"prompt": "a?"}}) as engine:
        await engine.until(InteractionRequested)
        engine.process.kill()
        outcome = await engine.outcome()
    assert (outcome.error_code, outcome.error_message) == (ErrorCode.ENGINE_EXIT_NONZERO, "the engine was ended by SIGKILL")


async def test_a_further_message_is_said_at_the_next_step(tmp_path: Path) -> None:
    async with playing(tmp_path, {"say": "one"}, {"sleep": 0.3}, {"say": "two"}) as engine:
        await engine.until(MessageCompleted)
        await engine.message("hello")
        await engine.outcome()
    assert texts(engine) == ["one", "message: hello", "two"]


async def test_a_session_remembers_how_often_it_was_used(tmp_path: Path) -> None:
    first, _ = await played(tmp_path, {"say": "a"})
    session = first.payloads(SessionStarted)[0].engine_session
    for turn in (2, 3):
        again, _ = await played(tmp_path, {"say": "b"}, session=session)
        assert texts(again) == [f"turns: {turn}", "b"]
        assert again.payloads(SessionStarted)[0].engine_session == session


@pytest.mark.parametrize("session", ["nobody", "../../etc/passwd"])
async def test_a_session_nobody_began_is_an_error(tmp_path: Path, session: str) -> None:
    _, outcome = await played(tmp_path, {"say": "b"}, session=session)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.NOT_FOUND)


async def test_the_world_around_it(tmp_path: Path) -> None:
    steps = [
        {"write": {"path": "notes/a.txt", "text": "hö"}},
        {"read": "notes/a.txt"},
        {"read": "no"},
        {"env": ["SHOWN", "UNSET"]},
    ]
    async with playing(tmp_path, *steps, env={"SHOWN": "yes"}) as engine:
        await engine.outcome()
    assert texts(engine)[:2] == ["hö", "cannot read no: No such file or directory"]
    assert json.loads(texts(engine)[2]) == {"SHOWN": "yes", "UNSET": None}


@pytest.mark.parametrize("setsid", [True, False])
async def test_a_spawned_process_is_named_and_outlives_the_engine(tmp_path: Path, setsid: bool) -> None:
    engine, outcome = await played(tmp_path, {"spawn": ["sleep", "60"], "setsid": setsid})
    pid = int(texts(engine)[0].removeprefix("spawned "))
    try:
        assert outcome.outcome is AttemptOutcome.SUCCESS
        assert (os.getsid(pid) == pid) is setsid
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_bytes_no_one_expects_are_shown_and_harm_nothing(tmp_path: Path) -> None:
    engine, outcome = await played(
        tmp_path,
        {"stdout": "plain"},
        {"stdout": '{"type": "who knows"}'},
        {"stdout": '{"type": "message"}'},
        {"stderr": "\x1b[31mred\x1b[0m"},
        {"binary": 1024},
        {"bigLine": 9 * 1024 * 1024},
        {"say": "end"},
    )
    assert outcome.result == "end"
    raw = [each.text for each in engine.payloads(RawStdout)]
    assert raw[0] == "plain"
    assert [each.text for each in engine.payloads(RawStderr)] == ["red"]
    codes = [each.code for each in engine.payloads(Diagnostic)]
    assert codes == ["undecodable_line", "undecodable_line", "line_too_long"]
    assert len(raw) > 4


async def test_a_failure_tells_how_long_the_model_asked_to_wait(tmp_path: Path) -> None:
    _, ended = await played(tmp_path, {"fail": {"code": "rate_limited", "message": "slow", "retryAfterMs": 700}})
    assert ended.retry_after_ms == 700


@pytest.mark.parametrize(
    ("steps", "outcome", "code", "message"),
    [
        ([{"result": {"a": 1}}], AttemptOutcome.SUCCESS, None, None),
        ([{"result": {"a": 1}}, {"exit": 3}], AttemptOutcome.SUCCESS, None, None),
        ([{"fail": {"code": "rate_limited", "message": "slow"}}], AttemptOutcome.ERROR, ErrorCode.RATE_LIMITED, "slow"),
        ([{"fail": {"code": "odd", "message": "m"}}], AttemptOutcome.ERROR, ErrorCode.ENGINE_EXIT_NONZERO, "odd: m"),
        ([{"exit": 0}], AttemptOutcome.ERROR, ErrorCode.ENGINE_NO_OUTPUT, "the engine ended without saying how"),
        ([{"exit": 3}], AttemptOutcome.ERROR, ErrorCode.ENGINE_EXIT_NONZERO, "the engine ended with exit status 3"),
        ([{"crash": True}], AttemptOutcome.ERROR, ErrorCode.ENGINE_EXIT_NONZERO, "the engine was ended by SIGABRT"),
        (
            [{"bogus": 1}],
            AttemptOutcome.ERROR,
            ErrorCode.INVALID_REQUEST,
            "step 1 (unknown): ValueError('there is no such step: bogus')",
        ),
        ([{"sleep": "x"}], AttemptOutcome.ERROR, ErrorCode.INVALID_REQUEST, None),
    ],
)
async def test_how_a_script_ends(
    tmp_path: Path, steps: list[Any], outcome: AttemptOutcome, code: ErrorCode | None, message: str | None
) -> None:
    _, ended = await played(tmp_path, *steps)
    assert (ended.outcome, ended.error_code) == (outcome, code)
    if message is not None:
        assert ended.error_message == message
    if outcome is AttemptOutcome.SUCCESS:
        assert ended.result == {"a": 1}


@pytest.mark.parametrize(("first", "ends"), [({"say": "up"}, True), ({"ignoreTerm": True}, False)])
async def test_a_hanging_script_dies_of_term_unless_it_ignores_it(tmp_path: Path, first: Any, ends: bool) -> None:
    async with playing(tmp_path, first, {"say": "up"}, {"hang": True}) as engine:
        await engine.until(MessageCompleted, lambda message: message.final)
        engine.process.terminate()
        if not ends:
            await engine.message("still there")
            assert engine.process.returncode is None
            engine.process.kill()
        outcome = await engine.outcome()
    assert outcome.error_message == f"the engine was ended by {'SIGTERM' if ends else 'SIGKILL'}"
