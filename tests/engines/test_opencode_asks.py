"""What the real OpenCode asks beside ACP: questions a person declines, leave its sub-agents need, and who else may answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from executor.adapters.opencode.adapter import OpenCodeAdapter
from executor.processes import procfs
from shared.contracts.events import AttemptOutcome, InteractionRequested, MessageCompleted, ToolCompleted, ToolStarted
from shared.contracts.interactions import Decision, Reply
from shared.sse import Frame, FrameReader
from tests.engines.drive import DOOR_KEY, Driven, driven, request_for
from tests.model_stub.server import ModelStub, serving
from tests.service.executor.kit import Inside, executor_inside

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
KEY = "sk-never-shown-to-anyone-0123456789"


def helper(prompt: str) -> str:
    """Tells the model to start a sub-agent with this prompt."""
    told = {"description": "look", "prompt": prompt.replace("[[", "<<").replace("]]", ">>"), "subagent_type": "general"}
    return f"[[call:task {json.dumps(told)}]]"


@pytest.fixture(scope="module")
def executable() -> str:
    found = [path for pattern in OpenCodeAdapter.install.globs for path in (ROOT / "engines").glob(pattern)]
    assert found, "opencode is not installed: make engines"
    return str(found[0])


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@pytest.fixture
def running(tmp_path: Path, executable: str, stub: ModelStub) -> Any:
    @asynccontextmanager
    async def start(prompt: str, **more: Any) -> AsyncGenerator[Driven]:
        options: dict[str, Any] = {"provider_options": {"baseUrl": stub.base_url}, "credential_env": {"OPENAI_API_KEY": KEY}}
        request = request_for(tmp_path, prompt, executable, model="stub-model", **(options | more))
        async with driven(OpenCodeAdapter().start(request), request) as engine:
            yield engine

    return start


def told_the_model(stub: ModelStub) -> str:
    return json.dumps([request["body"] for request in stub.requests])


async def test_a_declined_question_is_told_to_the_model_and_the_run_goes_on(running: Any, stub: ModelStub) -> None:
    async with running("[[question]]") as engine:
        asked = await engine.until(InteractionRequested)
        await engine.answer(asked.question_id, Reply(decision=Decision.DECLINE, message="ask me tomorrow"))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS, outcome.error_message
    assert "ask me tomorrow" in told_the_model(stub)
    assert engine.payloads(ToolCompleted) == []


async def test_declining_a_question_and_stopping_ends_the_run(running: Any) -> None:
    async with running("[[question]]") as engine:
        asked = await engine.until(InteractionRequested)
        await engine.answer(asked.question_id, Reply(decision=Decision.DECLINE_AND_STOP))
        assert (await engine.outcome()).outcome is AttemptOutcome.CANCELED


async def test_several_questions_are_answered_together(running: Any, stub: ModelStub) -> None:
    choices = [{"label": "one", "description": "1"}, {"label": "two", "description": "2"}]
    asked = {"questions": [{"question": f"{name}?", "header": name, "options": choices} for name in ("First", "Second")]}
    async with running(f"[[call:question {json.dumps(asked)}]]") as engine:
        question = await engine.until(InteractionRequested)
        assert question.prompt == "First?\nSecond?"
        await engine.answer(question.question_id, Reply(answer={"First": "two", "1": ["one", "two"]}))
        assert (await engine.outcome()).outcome is AttemptOutcome.SUCCESS
    assert r"\"First?\"=\"two\", \"Second?\"=\"one, two\"" in told_the_model(stub)


@pytest.mark.parametrize(("decision", "status"), [(Decision.ACCEPT, "made"), (Decision.DECLINE, None)])
async def test_leave_that_a_sub_agent_needs_is_asked_of_a_person(
    running: Any, tmp_path: Path, decision: Decision, status: str | None
) -> None:
    made = tmp_path / "workspace" / "made.txt"
    async with running(helper("[[tool:printf made > made.txt]]")) as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.prompt == "May a sub-agent use shell: printf made > made.txt?"
        await engine.answer(asked.question_id, Reply(decision=decision))
        outcome = await engine.outcome()
    assert outcome.outcome is AttemptOutcome.SUCCESS, outcome.error_message
    assert (made.read_text() if made.exists() else None) == status
    [task] = [each for each in engine.payloads(ToolStarted) if each.name == "task"]
    tools = [(each.name, each.parent_tool_id) for each in engine.payloads(ToolCompleted)]
    assert tools == [("task", None), ("shell", task.tool_id)]
    theirs = [each for each in engine.payloads(MessageCompleted) if each.parent_tool_id == task.tool_id]
    assert [each.final for each in theirs] == [False] * len(theirs) != []
    assert outcome.result not in [each.text for each in theirs]


async def test_a_question_of_a_sub_agent_reaches_a_person(running: Any, stub: ModelStub) -> None:
    async with running(helper("[[question]]")) as engine:
        asked = await engine.until(InteractionRequested)
        assert asked.prompt == "Tabs or spaces?"
        await engine.answer(asked.question_id, Reply(answer="Spaces"))
        assert (await engine.outcome()).outcome is AttemptOutcome.SUCCESS
    assert "Spaces" in told_the_model(stub)


async def test_nobody_without_the_key_of_the_attempt_speaks_to_its_server(running: Any) -> None:
    async with running("[[question]]") as engine:
        await engine.until(InteractionRequested)
        port = await asyncio.to_thread(procfs.server_port, engine.pid, engine.input_link)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            signed_in = (None, ("opencode", ""), ("opencode", DOOR_KEY))
            codes = [(await http.get("/question", auth=auth)).status_code for auth in signed_in]
        await engine.interrupt()
        await engine.outcome()
    assert codes == [401, 401, 200]


@pytest.fixture
async def contained(tmp_path: Path) -> AsyncGenerator[Inside]:
    bwrap = next((ROOT / "engines" / "node_modules" / "@openai").glob("codex-linux-*/vendor/*/codex-resources/bwrap"))
    settings: dict[str, Any] = {"containment": "required", "bwrap": bwrap, "engines_dir": ROOT / "engines"}
    async with executor_inside(tmp_path / "state", OpenCodeAdapter(), **settings) as inside:
        renewing = asyncio.create_task(on_leash(inside))
        yield inside
        renewing.cancel()


async def on_leash(executor: Inside) -> None:
    while True:
        state = (await executor.http.get("/executor")).json()
        quote = {name: state[name] for name in ("instance", "clockMs")}
        renewed = {"quote": quote, "attempts": [{"runId": "run_1", "attempt": 1}]}
        await executor.http.post("/provider-runs/renew", json=renewed)
        await asyncio.sleep(2)  # a driver's own pace


async def test_inside_bubblewrap_a_question_is_asked_and_answered_too(contained: Inside, stub: ModelStub) -> None:
    more: dict[str, Any] = {
        "model": "stub-model",
        "providerOptions": {"baseUrl": stub.base_url},
        "credentialEnv": {"OPENAI_API_KEY": KEY},
    }
    await contained.begin("[[question]]", timeouts={"runMs": 90_000}, **more)
    async with asyncio.timeout(100):
        [started, *_, asked] = [json.loads(frame.data) async for frame in until_asked(contained)]
    assert started["data"]["sandbox"].startswith("bubblewrap+")
    reply = {"questionId": asked["data"]["questionId"], "answer": "Spaces"}
    assert (await contained.http.post("/provider-runs/run_1/human-loop/reply", json=reply)).status_code == 200
    async with asyncio.timeout(100):
        ended = [json.loads(frame.data) async for frame in frames(contained)][-1]["data"]
    assert (ended["outcome"], "Spaces" in ended["result"]) == ("success", True), ended


async def until_asked(executor: Inside) -> AsyncIterator[Frame]:
    async for frame in frames(executor):
        yield frame
        if frame.event == b"interaction.requested":
            return


async def frames(executor: Inside) -> AsyncIterator[Frame]:
    """Of the attempt's stream, to its end; the kit's own reading is bounded for engines that take no time to start."""
    reader = FrameReader()
    async with executor.http.stream("GET", "/provider-runs/run_1/stream", timeout=100) as answer:
        async for chunk in answer.aiter_bytes():
            for frame in reader.feed(chunk):
                yield frame
