"""The real gemini-cli, opencode and qwen-code through all three services: one client's script for all of them.

After every test each of its runs is over, its log keeps the invariant, no process carries its mark, and the key stands nowhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from shared.contracts.providers import CLOSED, Provider
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, alive, processes_with, soon
from tests.engines.test_codex_through_services import ANSWER, KEY, Codex, engines_at, of_kind, sleepers, texts
from tests.model_stub.server import serving

pytestmark = pytest.mark.engine

MODELS = {"gemini-cli": "gemini-2.5-flash", "opencode": "stub-model", "qwen-code": "stub-model"}


@dataclass
class Caller(Codex):
    """Starts runs of one provider."""

    provider: str = ""

    async def start(self, prompt: str, options: dict[str, Any] | None = None, **more: Any) -> str:
        asked = {"provider": self.provider, "model": MODELS[self.provider]} | more
        return await super().start(prompt, options, **asked)


@pytest.fixture(scope="module")
def stack() -> Generator[Stack]:
    with make_folder() as folder, engines_at(folder, {"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY}) as stack:
        yield stack
        assert KEY not in (folder / "state.log").read_text()


@pytest.fixture(params=sorted(MODELS))
async def caller(stack: Stack, request: pytest.FixtureRequest) -> AsyncGenerator[Caller]:
    fresh = Stack(stack.process, stack.ready_file, stack.state_dir)
    async with fresh.client, serving() as stub:
        caller = Caller(fresh, stub, provider=request.param)
        yield caller
        for run_id in caller.runs:
            await caller.stack.stop(run_id)  # what a failed test left running
            await caller.check(run_id)
            assert not processes_with("RUNYARD_RUN", f"{run_id}.")


async def test_a_conversation_from_start_to_a_later_run(caller: Caller) -> None:
    first = await caller.start("remember kumquat [[tool:printf made > made.txt; cat made.txt]]", sessionId=caller.provider)
    question = await caller.decide(first, "accept")
    assert (question["type"], question["tool"]["name"]) == ("permission", "shell")
    assert "made.txt" in question["tool"]["input"]["command"]
    shown, events = await caller.ended(first)
    assert shown["status"] == "success", shown["errorMessage"]
    assert [data["status"] for data in of_kind(events, "tool.completed")] == ["completed"]
    assert "made" in shown["result"]
    shown, events = await caller.ended(await caller.start("[[text]]", sessionId=caller.provider))
    assert (shown["status"], shown["result"]) == ("success", ANSWER), shown["errorMessage"]
    assert "".join(texts(events, "message.delta")) == ANSWER
    assert of_kind(events, "attempt.started")[0]["resumed"] is True
    assert "kumquat" in str(list(caller.stub.requests))


async def test_a_stop_ends_a_running_command_and_leaves_nothing(caller: Caller) -> None:
    run_id = await caller.start("[[tool:touch began; sleep 97]]", engineMode="full")  # one refuses what does nothing but sleep
    await caller.first(run_id, "tool.started")
    assert soon(lambda: bool(sleepers(run_id)))
    pids = processes_with("RUNYARD_RUN", f"{run_id}.")
    assert (await caller.stack.stop(run_id)).status_code == 200
    shown, events = await caller.ended(run_id)
    assert (shown["status"], shown["errorCode"]) == ("canceled", "user_canceled")
    assert [data["status"] for data in of_kind(events, "tool.completed")] == ["canceled"]
    assert soon(lambda: not any(alive(pid) for pid in pids))


async def test_refused_credentials_fail_the_run_with_their_reason(caller: Caller) -> None:
    shown, events = await caller.ended(await caller.start("[[401]]"))
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "auth_failed", False), shown["errorMessage"]
    assert of_kind(events, "attempt.ended")[0]["stderrTail"] is not None


async def test_a_closed_provider_is_refused_before_a_run_exists(stack: Stack) -> None:
    fresh = Stack(stack.process, stack.ready_file, stack.state_dir)
    async with fresh.client as client:
        before = (await client.get("/api/runs")).json()["items"]
        answer = await client.post("/api/runs/start", json={"provider": "iflow", "prompt": "hi"})
        assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
        assert CLOSED[Provider.IFLOW_CLI] in answer.json()["detail"]
        assert (await client.get("/api/runs")).json()["items"] == before
        told = {each["provider"]: each for each in (await client.get("/api/system/readiness")).json()["providers"]}
        assert told["iflow-cli"]["readinessCategory"] == "environment_not_ready"
        assert told["iflow-cli"]["blockingReason"] == CLOSED[Provider.IFLOW_CLI]
