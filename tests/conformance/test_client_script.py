"""One client script through the whole stack: start, approve, answer, follow up, stop, resume. It runs unchanged on every living
engine, whatever protocol that speaks; only provider and model are given to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from executor.adapters import ADAPTERS
from runyard.api import Event, Runyard
from tests.conformance.cases import ANSWER, MAKE, WORD
from tests.conformance.engines import ENGINES, Engine
from tests.conformance.ground import ENGINES_DIR, KEYS
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, no_process_of, running_stack
from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine

LIVING = [each for each in ENGINES.values() if each.can_be_played and each.speaks == "marker"]


@dataclass
class Client:
    """What a caller writes. It knows no engine: it answers what it is asked, by the kind of the question."""

    runyard: Runyard
    request: Mapping[str, Any]
    session: str = field(default_factory=lambda: f"script-{uuid4().hex[:12]}")
    runs: list[str] = field(default_factory=list[str])
    replies: list[str] = field(default_factory=list[str])

    async def start(self, prompt: str, **more: Any) -> str:
        accepted = await self.runyard.start(prompt, **{**self.request, **more})
        self.runs.append(str(accepted["runId"]))
        return self.runs[-1]

    async def finish(self, run_id: str) -> dict[str, Any]:
        """The snapshot of the finished run; what it asks on the way is answered."""
        async with aclosing(self.runyard.stream(run_id)) as events:
            async for event in events:
                if event.kind == "interaction.requested":
                    await self.reply(run_id, event)
        return await self.runyard.get(run_id)

    async def reply(self, run_id: str, asked: Event) -> None:
        if asked.data["type"] == "question":
            await self.runyard.reply(run_id, asked.data["questionId"], answer=asked.data["options"][-1]["label"])
        else:
            await self.runyard.reply(run_id, asked.data["questionId"], decision="accept")
        self.replies.append(asked.data["type"])

    async def stop_when_it_speaks(self, run_id: str) -> dict[str, Any]:
        async with aclosing(self.runyard.stream(run_id)) as events:
            async for event in events:
                if event.kind == "message.delta":
                    break
        await self.runyard.stop(run_id)
        return await self.finish(run_id)


@pytest.fixture(scope="module")
def engine_stack() -> Generator[Stack]:
    with make_folder() as folder:
        with running_stack(folder / "state", environment={"RUNYARD_ENGINES_DIR": str(ENGINES_DIR), **KEYS}) as stack:
            yield stack
        log = (folder / "state.log").read_text()
        assert not any(key in log for key in KEYS.values())


@pytest.fixture
async def stack(engine_stack: Stack) -> AsyncGenerator[Stack]:
    """The shared one, with a client of this test's event loop."""
    fresh = Stack(engine_stack.process, engine_stack.ready_file, engine_stack.state_dir)
    async with fresh.client:
        yield fresh


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@pytest.mark.parametrize("engine", LIVING, ids=lambda engine: engine.provider)
async def test_one_client_script_serves_every_engine(stack: Stack, stub: ModelStub, engine: Engine) -> None:
    request = {"provider": engine.provider, "model": engine.model, "providerOptions": {"baseUrl": stub.base_url}}
    async with Runyard(stack.facts["apiUrl"], stack.facts["apiKey"]) as runyard:
        client = Client(runyard, request)
        approved = await client.finish(await client.start(f"remember {WORD} [[tool:{MAKE}]]", sessionId=client.session))
        assert (approved["status"], client.replies) == ("success", ["permission"]), approved
        assert [each["path"] for each in (await runyard.files(approved["runId"]))["items"]] == ["made.txt"]

        answered = await client.finish(await client.start("[[question]]", sessionId=client.session))
        assert answered["status"] == "success", answered
        if ADAPTERS[engine.provider].capabilities.questions:
            assert client.replies == ["permission", "question"]
            assert "Spaces" in answered["result"]

        followed = await client.finish(await client.start("[[text]]", sessionId=client.session))
        assert (followed["status"], followed["result"], followed["sessionId"]) == ("success", ANSWER, client.session), followed
        assert WORD in str(stub.requests[-1]["body"]), "the engine does not remember the session"

        stopped = await client.stop_when_it_speaks(await client.start("[[slow:400]]", sessionId=client.session))
        assert (stopped["status"], stopped["errorCode"]) == ("canceled", "user_canceled"), stopped

        resumed = await client.finish(await client.start("[[text]]", resumeRunId=stopped["runId"]))
        assert (resumed["status"], resumed["result"]) == ("success", ANSWER), resumed
        assert WORD in str(stub.requests[-1]["body"]), "the engine does not remember what was before the stop"

        for run_id in client.runs:
            await stack.check(run_id)
            assert no_process_of(run_id)
