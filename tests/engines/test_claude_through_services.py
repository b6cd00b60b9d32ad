"""The real Claude Code through all three services, as a caller of ``/api/runs`` sees it.

After every test, whatever it was about: each of its runs is over, its log keeps the invariant, no process carries its mark, and
the key that the engine signed in with stands nowhere a caller can look.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from shared.contracts.providers import Provider
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, alive, processes_with, soon
from tests.engines.test_codex_through_services import KEY, Codex, Event, engines_at, of_kind, sleepers, texts
from tests.loopback import unused_port
from tests.model_stub.server import serving

pytestmark = pytest.mark.engine

ANSWER = "Hello from the model stub. The answer is 42."
STOP_SECONDS = 10


@dataclass
class Claude(Codex):
    """Starts runs of Claude Code against one stub, and remembers them to look at them afterwards."""

    async def start(self, prompt: str, options: dict[str, Any] | None = None, **more: Any) -> str:
        given = {"baseUrl": self.stub.base_url} | (options or {})
        request = {"provider": "claude", "model": "claude-sonnet-4-5", "providerOptions": given} | more
        self.runs.append(await self.stack.start(prompt, **request))
        return self.runs[-1]


@pytest.fixture(scope="module")
def engine_stack() -> Generator[Stack]:
    """The executor's own endpoint is a closed port: what a request names stands above it."""
    credentials = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{unused_port()}"}
    with make_folder() as folder, engines_at(folder, credentials) as stack:
        yield stack
        assert KEY not in (folder / "state.log").read_text()


@pytest.fixture
async def claude(engine_stack: Stack) -> AsyncGenerator[Claude]:
    fresh = Stack(engine_stack.process, engine_stack.ready_file, engine_stack.state_dir)
    async with fresh.client, serving() as stub:
        claude = Claude(fresh, stub)
        yield claude
        for run_id in claude.runs:
            await claude.stack.stop(run_id)  # what a failed test left running
            await claude.check(run_id)


async def test_text_is_streamed_and_is_the_result(claude: Claude) -> None:
    shown, events = await claude.ended(await claude.start("hi [[text]]"))
    assert (shown["status"], shown["result"], shown["errorCode"]) == ("success", ANSWER, None), shown
    assert (shown["provider"], shown["model"]) == ("claude-code", "claude-sonnet-4-5")
    assert "".join(texts(events, "message.delta")) == ANSWER
    assert [(data["text"], data["final"]) for data in of_kind(events, "message.completed")] == [(ANSWER, True)]
    usage = {"inputTokens": 2000, "cachedInputTokens": 800, "outputTokens": 42}
    assert usage.items() <= shown["usage"].items()
    assert shown["usage"]["costUsd"] > 0
    [started] = of_kind(events, "attempt.started")
    assert started["engineVersion"] == "2.1.197"
    assert shown["resumeSessionId"] == of_kind(events, "session.started")[0]["engineSession"]
    assert claude.stub.requests[0]["headers"]["x-api-key"] == "present"


async def test_what_a_command_finds_of_the_key_is_not_shown(claude: Claude) -> None:
    stolen = "tr '\\0' '\\n' < /proc/$PPID/environ | grep ^ANTHROPIC_API_KEY"
    shown, events = await claude.ended(await claude.start(f"[[tool:{stolen}]]", engineMode="full"))
    assert shown["status"] == "success"
    assert KEY in str(claude.stub.requests[-1]["body"]), "the command did not find the key, so this proves nothing"
    assert of_kind(events, "tool.completed")[0]["output"].strip() == f"ANTHROPIC_API_KEY={'*' * len(KEY)}"


async def test_a_plan_reaches_a_person(claude: Claude) -> None:
    run_id = await claude.start('[[call:ExitPlanMode {"plan": "1. look"}]]', engineMode="plan")
    question = await claude.decide(run_id, "decline", message="look twice")
    assert (question["type"], question["prompt"]) == ("plan", "1. look")
    shown, _events = await claude.ended(run_id)
    assert "look twice" in shown["result"]


async def stopped(claude: Claude, run_id: str) -> list[Event]:
    began = time.monotonic()
    assert (await claude.stack.stop(run_id)).status_code == 200
    shown, events = await claude.ended(run_id)
    assert time.monotonic() - began < STOP_SECONDS
    assert (shown["status"], shown["errorCode"]) == ("canceled", "user_canceled")
    return events


async def test_a_stop_ends_a_running_command(claude: Claude) -> None:
    run_id = await claude.start("[[tool:sleep 97]]", engineMode="full")
    await claude.first(run_id, "tool.started")
    assert soon(lambda: bool(sleepers(run_id)))
    pids = sleepers(run_id)
    events = await stopped(claude, run_id)
    assert [data["status"] for data in of_kind(events, "tool.completed")] == ["canceled"]
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("prompt", ["[[tool:touch x]]", "[[question]]"])
async def test_a_stop_withdraws_the_open_question(claude: Claude, prompt: str) -> None:
    run_id = await claude.start(prompt)
    await claude.question(run_id)
    events = await stopped(claude, run_id)
    assert [data["how"] for data in of_kind(events, "interaction.resolved")] == ["withdrawn"]
    assert len(claude.stub.requests) == 1


async def test_a_killed_engine_leaves_nothing_and_its_session_goes_on(claude: Claude) -> None:
    first = await claude.start("remember the word kumquat [[tool:sleep 97]]", engineMode="full")
    await claude.first(first, "tool.started")
    assert soon(lambda: bool(sleepers(first)))
    pids = processes_with("RUNYARD_RUN", f"{first}.")
    [engine] = [pid for pid in pids if b"claude" in command_of(pid)]
    os.kill(engine, signal.SIGKILL)
    shown, _events = await claude.ended(first)
    assert (shown["status"], shown["errorCode"]) == ("error", "engine_exit_nonzero")
    assert not any(alive(pid) for pid in pids)
    shown, _events = await claude.ended(await claude.start("[[text]]", resumeRunId=first))
    assert (shown["status"], shown["result"]) == ("success", ANSWER)
    assert "kumquat" in str(claude.stub.requests[-1]["body"])


def command_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[0]
    except OSError:
        return b""


async def test_a_stopped_run_can_be_gone_on_with(claude: Claude) -> None:
    first = await claude.start("remember the word kumquat [[slow:400]]", sessionId="fruit")
    await claude.first(first, "message.delta")
    await stopped(claude, first)
    ways: list[dict[str, Any]] = [{"resumeRunId": first}, {"sessionId": "fruit"}]
    for way in ways:
        shown, events = await claude.ended(await claude.start("[[text]]", **way))
        assert (shown["status"], shown["result"]) == ("success", ANSWER)
        assert of_kind(events, "attempt.started")[0]["resumed"] is True
        assert "kumquat" in str(claude.stub.requests[-1]["body"])
        assert shown["usage"]["outputTokens"] == 42, "the tokens of earlier runs were counted again"


@pytest.mark.parametrize(
    ("scenario", "code", "retryable"),
    [("401", "auth_failed", False), ("500", "model_unavailable", True), ("empty", "engine_no_output", True)],
)
async def test_a_failure_of_the_model_is_named(claude: Claude, scenario: str, code: str, retryable: bool) -> None:
    shown, events = await claude.ended(await claude.start(f"x [[{scenario}]]", retry={"maxAttempts": 1}))
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", code, retryable), shown["errorMessage"]
    assert shown["errorMessage"]
    assert shown["hint"]
    [ended] = of_kind(events, "attempt.ended")
    assert (ended["outcome"], ended["errorCode"]) == ("error", code)


async def test_without_a_key_the_engine_is_not_launched() -> None:
    without = dict.fromkeys(ADAPTERS[Provider.CLAUDE_CODE].credentials.names, "")
    with make_folder() as folder, engines_at(folder, without) as stack:
        async with stack.client, serving() as stub:
            claude = Claude(stack, stub)
            run_id = await claude.start("hi")
            shown, events = await claude.ended(run_id)
            assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "auth_missing", False)
            assert "ANTHROPIC_API_KEY" in shown["errorMessage"]
            assert {event["kind"] for event in events} == {"run.status"}
            assert not stub.requests
            await claude.check(run_id)
