"""The real ``codex app-server`` through all three services, as a caller of ``/api/runs`` sees it.

After every test, whatever it was about: each of its runs is over, its log keeps the invariant, no process carries its mark, and
the key that codex signed in with stands nowhere a caller can look.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from shared.contracts.providers import Provider
from tests.e2e.conftest import make_folder
from tests.e2e.kit import RUN_SECONDS, Stack, alive, processes_with, running_stack, soon
from tests.loopback import unused_port
from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine

ENGINES = Path(__file__).parent.parent.parent / "engines"
KEY = "sk-never-shown-to-anyone-0123456789"
ANSWER = "Hello from the model stub. The answer is 42."
STOP_SECONDS = 10
LOG_BLOCK = 65_536

Event = dict[str, Any]


@dataclass
class Codex:
    """Starts runs of codex against one stub, and remembers them to look at them afterwards."""

    stack: Stack
    stub: ModelStub
    runs: list[str] = field(default_factory=list[str])

    async def start(self, prompt: str, options: dict[str, Any] | None = None, **more: Any) -> str:
        given = {"baseUrl": self.stub.base_url} | (options or {})
        request = {"provider": "codex-app-server", "model": "gpt-5.5", "providerOptions": given} | more
        self.runs.append(await self.stack.start(prompt, **request))
        return self.runs[-1]

    async def ended(self, run_id: str) -> tuple[dict[str, Any], list[Event]]:
        """The snapshot of the finished run, and its log."""
        return await self.stack.until(run_id), await self.stack.events(run_id)

    async def first(self, run_id: str, kind: str) -> Event:
        """The first event of this kind, as soon as it is there."""
        async with self.stack.stream(run_id) as frames:
            async for frame in frames:
                if frame.event.decode() == kind:
                    return json.loads(frame.data)
        raise AssertionError(f"{run_id} ended without {kind}: {await self.stack.events(run_id)}")

    async def question(self, run_id: str) -> dict[str, Any]:
        """The open question. A reply that is on its way leaves the run waiting, with no question open."""
        async with asyncio.timeout(RUN_SECONDS):
            while not (shown := await self.stack.until(run_id, "waiting_user"))["pendingQuestions"]:
                await asyncio.sleep(0.02)  # polling a condition with a bound
        return shown["pendingQuestions"][0]

    async def decide(self, run_id: str, decision: str, **more: Any) -> dict[str, Any]:
        """The question that was open, answered."""
        question = await self.question(run_id)
        answer = await self.stack.reply(run_id, question["questionId"], decision=decision, **more)
        assert answer.status_code == 200, answer.text
        return question

    async def check(self, run_id: str) -> None:
        """What is true of every run of codex, however it ended."""
        shown = await self.stack.until(run_id)
        events = await self.stack.check(run_id)
        logs = [await self._log(run_id, stream) for stream in ("stdout", "stderr")]
        for seen in (json.dumps(shown).encode(), json.dumps(events).encode(), *logs):
            assert KEY.encode() not in seen
        for said in texts(events, "message.delta"), texts(events, "reasoning.delta"):
            assert KEY not in "".join(said)

    async def _log(self, run_id: str, stream: str) -> bytes:
        found = b""
        while True:
            params = {"byteFrom": len(found), "byteTo": len(found) + LOG_BLOCK}
            part = (await self.stack.client.get(f"/api/runs/{run_id}/logs/{stream}", params=params)).json()
            found += base64.b64decode(part.get("base64", ""))
            if len(found) >= part.get("totalBytes", 0):
                return found


def of_kind(events: list[Event], kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["kind"] == kind]


def texts(events: list[Event], kind: str) -> list[str]:
    return [data["text"] for data in of_kind(events, kind)]


def engines_at(folder: Path, credentials: dict[str, str]) -> AbstractContextManager[Stack]:
    """A stack whose executor has the pinned engines and these credentials."""
    return running_stack(folder / "state", environment={"RUNYARD_ENGINES_DIR": str(ENGINES)} | credentials)


@pytest.fixture(scope="module")
def engine_stack() -> Generator[Stack]:
    with make_folder() as folder, engines_at(folder, {"OPENAI_API_KEY": KEY}) as stack:
        yield stack
        assert KEY not in (folder / "state.log").read_text()


@pytest.fixture
async def codex(engine_stack: Stack) -> AsyncGenerator[Codex]:
    fresh = Stack(engine_stack.process, engine_stack.ready_file, engine_stack.state_dir)
    async with fresh.client, serving() as stub:
        codex = Codex(fresh, stub)
        yield codex
        for run_id in codex.runs:
            await codex.stack.stop(run_id)  # what a failed test left running
            await codex.check(run_id)


# ---- what it says ----


async def test_text_is_streamed_and_is_the_result(codex: Codex) -> None:
    shown, events = await codex.ended(await codex.start("hi [[text]]"))
    assert (shown["status"], shown["result"], shown["errorCode"]) == ("success", ANSWER, None)
    assert "".join(texts(events, "message.delta")) == ANSWER
    assert [(data["text"], data["final"]) for data in of_kind(events, "message.completed")] == [(ANSWER, True)]
    usage = {"inputTokens": 1200, "cachedInputTokens": 800, "outputTokens": 42, "reasoningTokens": 7}
    assert usage.items() <= shown["usage"].items()
    assert usage.items() <= events[-1]["data"]["usage"].items()
    [started] = of_kind(events, "attempt.started")
    assert started["engineVersion"] == "0.169.0"
    assert shown["resumeSessionId"] == of_kind(events, "session.started")[0]["engineSession"]
    assert codex.stub.requests[0]["headers"]["authorization"] == "present"


async def test_reasoning_is_told_apart_from_the_answer(codex: Codex) -> None:
    shown, events = await codex.ended(await codex.start("[[reasoning]]"))
    assert shown["result"] == "After some thought: 42."
    assert "".join(texts(events, "reasoning.delta")).strip() == "First I look. Then I answer."
    assert texts(events, "reasoning.completed") == ["First I look. Then I answer."]


async def test_an_answer_in_a_schemas_form_is_json(codex: Codex) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    shown, _events = await codex.ended(await codex.start("[[json]]", {"outputSchema": schema}))
    assert (shown["status"], shown["result"]) == ("success", {"answer": 42})
    assert codex.stub.requests[0]["body"]["text"]["format"]["schema"] == schema


async def test_what_a_command_finds_of_the_key_is_not_shown(codex: Codex) -> None:
    stolen = "tr '\\0' '\\n' < /proc/$PPID/environ | grep ^OPENAI_API_KEY"
    shown, events = await codex.ended(await codex.start(f"[[tool:{stolen}]]", engineMode="full"))
    assert shown["status"] == "success"
    assert KEY in str(codex.stub.requests[-1]["body"]), "the command did not find the key, so this proves nothing"
    assert of_kind(events, "tool.completed")[0]["output"].strip() == f"OPENAI_API_KEY={'*' * len(KEY)}"
    assert "*" * len(KEY) in shown["result"]


async def test_a_key_that_the_model_spells_out_is_not_shown(codex: Codex) -> None:
    shown, events = await codex.ended(await codex.start(f"[[spell:a key {KEY}.]]"))
    assert shown["result"] == f"a key {'*' * len(KEY)}."
    assert "".join(texts(events, "message.delta")) == shown["result"]


# ---- what it asks ----


@pytest.mark.parametrize(("decision", "questions"), [("accept", 2), ("acceptForSession", 1)])
async def test_a_command_accepted_for_the_session_is_not_asked_about_again(codex: Codex, decision: str, questions: int) -> None:
    run_id = await codex.start("[[twice:touch made.txt]]")
    for _ in range(questions):
        await codex.decide(run_id, decision)
    shown, events = await codex.ended(run_id)
    assert shown["status"] == "success"
    assert [data["exitCode"] for data in of_kind(events, "tool.completed")] == [0, 0]
    assert len(of_kind(events, "interaction.requested")) == questions


async def test_decline_and_stop_ends_the_run(codex: Codex) -> None:
    run_id = await codex.start("[[tool:touch made.txt]]")
    await codex.decide(run_id, "declineAndStop")
    shown, events = await codex.ended(run_id)
    assert (shown["status"], shown["errorCode"]) == ("canceled", "user_canceled")
    assert [data["how"] for data in of_kind(events, "interaction.resolved")] == ["answered"]
    assert len(codex.stub.requests) == 1


@pytest.mark.parametrize("decision", ["accept", "decline"])
async def test_an_edit_is_asked_about_with_its_diff(codex: Codex, tmp_path: Path, decision: str) -> None:
    edited = tmp_path / "stub.txt"
    run_id = await codex.start(f"[[edit:{edited}]]")
    question = await codex.decide(run_id, decision)
    assert (question["type"], question["tool"]["name"]) == ("permission", "edit")
    [change] = question["tool"]["input"]["changes"]
    assert (change["path"], change["diff"].strip()) == (str(edited), "written by the model stub")
    shown, events = await codex.ended(run_id)
    assert shown["status"] == "success"
    assert [data["name"] for data in of_kind(events, "tool.started")] == ["edit"]
    assert edited.exists() is (decision == "accept")


async def test_a_question_nobody_answers_is_declined_where_the_run_says_so(codex: Codex) -> None:
    run_id = await codex.start("[[tool:touch made.txt]]", {"interactionTimeoutMs": 200, "onExpiry": "deny"})
    _shown, events = await codex.ended(run_id)
    assert [data["status"] for data in of_kind(events, "tool.completed")] == ["declined"]


# ---- stop ----


async def test_a_run_that_takes_too_long_is_ended(codex: Codex) -> None:
    shown, events = await codex.ended(await codex.start("[[slow:400]]", {"timeoutMs": 1500}))
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("timeout", "timeout", True)
    assert "word0 " in "".join(texts(events, "message.delta"))


async def stopped(codex: Codex, run_id: str) -> list[Event]:
    began = time.monotonic()
    assert (await codex.stack.stop(run_id)).status_code == 200
    shown, events = await codex.ended(run_id)
    assert time.monotonic() - began < STOP_SECONDS
    assert (shown["status"], shown["errorCode"]) == ("canceled", "user_canceled")
    return events


@pytest.mark.parametrize("mode", ["full", "auto-edit"])
async def test_a_stop_ends_a_running_command(codex: Codex, mode: str) -> None:
    run_id = await codex.start("[[tool:sleep 97]]", engineMode=mode)
    await codex.first(run_id, "tool.started")
    assert soon(lambda: bool(sleepers(run_id)))
    pids = sleepers(run_id)
    events = await stopped(codex, run_id)
    assert [data["status"] for data in of_kind(events, "tool.completed")] == ["canceled"]
    assert not any(alive(pid) for pid in pids)


def sleepers(run_id: str) -> list[int]:
    return [pid for pid in processes_with("RUNYARD_RUN", f"{run_id}.") if command_line(pid) == b"sleep\x0097\0"]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("prompt", ["[[tool:touch x]]", "[[question]]"])
async def test_a_stop_withdraws_the_open_question(codex: Codex, prompt: str) -> None:
    run_id = await codex.start(prompt)
    question = await codex.question(run_id)
    events = await stopped(codex, run_id)
    assert [data["how"] for data in of_kind(events, "interaction.resolved")] == ["withdrawn"]
    assert (await codex.stack.show(run_id))["pendingQuestions"] == []
    late = await codex.stack.reply(run_id, question["questionId"], decision="accept")
    assert late.status_code in (409, 422)
    assert len(codex.stub.requests) == 1


# ---- later ----


async def test_a_session_goes_on_in_later_runs(codex: Codex) -> None:
    first = await codex.start("remember the word kumquat", sessionId="fruit")
    shown, events = await codex.ended(first)
    assert shown["status"] == "success", events
    session = shown["resumeSessionId"]
    ways: list[dict[str, Any]] = [{"sessionId": "fruit"}, {"resumeRunId": first}, {"resumeSessionId": session}]
    for further in ways:
        shown, events = await codex.ended(await codex.start("[[text]]", **further))
        assert (shown["status"], shown["sessionId"]) == ("success", "fruit"), (shown["errorMessage"], events)
        assert of_kind(events, "attempt.started")[0]["resumed"] is True
        assert of_kind(events, "session.started")[0]["engineSession"] == session
        assert "kumquat" in str(codex.stub.requests[-1]["body"])
        assert shown["usage"]["inputTokens"] == 1200, "the tokens of earlier runs were counted again"


async def test_a_run_goes_on_when_the_control_plane_is_killed(codex: Codex) -> None:
    words = 40
    run_id = await codex.start(f"[[slow:{words}]]")
    await codex.first(run_id, "message.delta")
    engine = processes_with("RUNYARD_RUN", f"{run_id}.")
    os.kill(codex.stack.pid("control-plane"), signal.SIGKILL)
    assert any(alive(pid) for pid in engine)
    shown, events = await codex.ended(run_id)
    assert (shown["status"], shown["attempt"]) == ("success", 1)
    assert shown["result"] == "".join(texts(events, "message.delta")) == "".join(f"word{n} " for n in range(words))
    assert len(codex.stub.requests) == 1


# ---- failures ----


@pytest.mark.parametrize(
    ("scenario", "code", "retryable", "retries", "within_seconds"),
    [
        ("401", "auth_failed", False, 0, 10),
        ("403", "auth_failed", False, 0, 10),
        ("404", "model_not_found", False, 0, 10),
        ("429", "rate_limited", True, 2, 20),
        ("quota", "quota_exceeded", False, 0, 10),
        ("500", "model_unavailable", True, 2, 20),
        ("cut", "model_unavailable", True, 2, 20),
        ("empty", "engine_no_output", True, 0, 10),
        ("refused", "network_error", True, 2, 20),
    ],
)
async def test_a_failure_of_the_model_is_named_soon(
    codex: Codex, scenario: str, code: str, retryable: bool, retries: int, within_seconds: float
) -> None:
    began = time.monotonic()
    options = {"baseUrl": f"http://127.0.0.1:{unused_port()}/v1"} if scenario == "refused" else {}
    once = {"maxAttempts": 1}
    shown, events = await codex.ended(await codex.start(f"x [[{scenario}]]", options, retry=once))
    assert time.monotonic() - began < within_seconds
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", code, retryable), shown["errorMessage"]
    assert shown["errorMessage"]
    assert shown["hint"]
    assert (events[-1]["data"]["errorCode"], events[-1]["data"]["retryable"]) == (code, retryable)
    [ended] = of_kind(events, "attempt.ended")
    assert (ended["outcome"], ended["errorCode"]) == ("error", code)
    assert {data["errorCode"] for data in of_kind(events, "retry.scheduled")} == ({code} if retries else set())
    assert len(of_kind(events, "retry.scheduled")) == retries
    said = "".join(texts(events, "message.delta"))
    assert ("This answer will be cut" if scenario == "cut" else "").startswith(said)


async def test_without_a_key_the_engine_is_not_launched() -> None:
    without = dict.fromkeys(ADAPTERS[Provider.CODEX_APP_SERVER].credentials.names, "")
    with make_folder() as folder, engines_at(folder, without) as stack:
        async with stack.client, serving() as stub:
            codex = Codex(stack, stub)
            run_id = await codex.start("hi")
            shown, events = await codex.ended(run_id)
            assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "auth_missing", False)
            assert "OPENAI_API_KEY" in shown["errorMessage"]
            assert {event["kind"] for event in events} == {"run.status"}
            assert not stub.requests
            await codex.check(run_id)
