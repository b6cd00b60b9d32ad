"""gemini-cli, opencode and qwen-code for the tests that drive them: a row for what is each one's own, and their fixtures."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.base import Adapter
from executor.adapters.gemini.adapter import GeminiAdapter
from executor.adapters.opencode.adapter import OpenCodeAdapter
from executor.adapters.qwen.adapter import QwenAdapter
from tests.engines.drive import Driven, driven, request_for
from tests.model_stub.server import ModelStub, serving

ENGINES = Path(__file__).parent.parent.parent / "engines"
KEY = "sk-never-shown-to-anyone-0123456789"
ANSWER = "Hello from the model stub. The answer is 42."


@dataclass(frozen=True)
class Row:
    """An engine, and what is its own.

    ``apart``: what it helps itself out of. ``retries``: the failures whose retries it tells.
    """

    adapter: Adapter
    key: str
    model: str
    counts: tuple[int, int]
    mcp_tool: str
    apart: frozenset[str] = frozenset()
    retries: frozenset[str] = frozenset()


ROWS = {
    "gemini": Row(GeminiAdapter(), "GEMINI_API_KEY", "gemini-2.5-flash", (1200, 42), "mcp_box_echo"),
    "opencode": Row(
        OpenCodeAdapter(), "OPENAI_API_KEY", "stub-model", (1200, 42), "box_echo",
        retries=frozenset({"429", "500", "529", "cut"}),
        apart=frozenset({"toolong"}),  # it makes the conversation shorter and goes on
    ),
    "qwen": Row(
        QwenAdapter(), "OPENAI_API_KEY", "stub-model", (1200, 42), "mcp__box__echo",
        retries=frozenset({"429", "quota", "500", "529", "refused", "empty"}),
    ),
}  # fmt: skip
# What runs without ALL=1: a process takes seconds to start, and there are three engines.
SLICE = frozenset({
    "test_text_is_streamed_and_is_the_result",
    "test_an_accepted_command_runs",
    "test_a_declined_command_does_not_run_and_the_reason_reaches_the_model",
    "test_an_interrupt_ends_a_running_command",
    "test_a_session_is_resumed_by_another_process_and_tells_nothing_again",
    "test_a_question_reaches_a_person_and_the_answer_the_model",
})  # fmt: skip


@pytest.fixture(scope="module", params=sorted(ROWS))
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture(scope="module")
def executable(row: Row) -> str:
    found = [path for pattern in row.adapter.install.globs for path in ENGINES.glob(pattern)]
    assert found, f"{row.adapter.provider} is not installed: python scripts/install_engines.py"
    return str(found[0])


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@dataclass(frozen=True)
class Engine:
    """Starts conversations of one engine with one HOME against one stub."""

    row: Row
    executable: str
    home: Path
    stub: ModelStub

    @property
    def workspace(self) -> Path:
        return self.home / "workspace"

    @asynccontextmanager
    async def running(self, prompt: str, session: str | None = None, **more: Any) -> AsyncGenerator[Driven]:
        fields: dict[str, Any] = {
            "model": self.row.model,
            "provider_options": {"baseUrl": self.stub.base_url},
            "credential_env": {self.row.key: KEY},
        }
        request = request_for(self.home, prompt, self.executable, **(fields | more))
        adapter = self.row.adapter
        conversation = adapter.start(request) if session is None else adapter.resume(request, session)
        async with driven(conversation, request) as engine:
            yield engine

    def asked(self) -> list[dict[str, Any]]:
        """What the model was asked, without the engine's own side requests."""
        return [request for request in self.stub.requests if "tools" in request["body"]]


def tools_in(body: dict[str, Any]) -> set[str]:
    """The names of the tools a request to the model offers, in either dialect."""
    given = [each for tool in body["tools"] for each in tool.get("functionDeclarations", [tool.get("function")])]
    return {each["name"] for each in given if each}


@pytest.fixture
def engine(row: Row, executable: str, tmp_path: Path, stub: ModelStub) -> Engine:
    return Engine(row, executable, tmp_path, stub)
