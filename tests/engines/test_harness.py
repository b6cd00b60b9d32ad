"""``runyard harness`` with real engine CLIs: arguments untouched, output kept, events told, sessions resumed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
RUNYARD = Path(sys.executable).with_name("runyard")
BOUND = 60
ANSWER = "Hello from the model stub. The answer is 42."
Arguments = Callable[[ModelStub, str], list[str]]


def codex(stub: ModelStub, prompt: str) -> list[str]:
    provider = f'model_providers.stub={{name="stub",base_url="{stub.base_url}",env_key="STUB_KEY",wire_api="responses"}}'
    settings = ["-c", provider, "-c", 'model_provider="stub"', "-c", "analytics.enabled=false"]
    return ["exec", "--json", "--skip-git-repo-check", *settings, prompt]


def claude(_stub: ModelStub, prompt: str) -> list[str]:
    return ["--print", "--output-format", "stream-json", "--verbose", prompt]


def gemini(_stub: ModelStub, prompt: str) -> list[str]:
    return ["--prompt", prompt, "--model", "gemini-2.5-flash", "--output-format", "stream-json", "--approval-mode", "yolo"]


def opencode(_stub: ModelStub, prompt: str) -> list[str]:
    return ["run", "--format", "json", prompt]


def qwen(_stub: ModelStub, prompt: str) -> list[str]:
    return ["--prompt", prompt, "--output-format", "stream-json", "--include-partial-messages", "--approval-mode", "yolo"]


ENGINES = {"codex": codex, "claude": claude, "gemini": gemini, "opencode": opencode, "qwen": qwen}
# What a user says again at each resumption, because it is no part of the session.
AGAIN = {"codex": ["--skip-git-repo-check"], "gemini": ["--model", "gemini-2.5-flash"]}


class Place:
    """A user's home and terminal: nothing of it is ours."""

    def __init__(self, folder: Path, stub: ModelStub) -> None:
        self.folder = folder
        self.state = folder / "state" / "runyard" / "harness"
        self.work = folder / "work"
        self.work.mkdir()
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "STUB_KEY": "sk-1",
            "ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_BASE_URL": stub.base_url.removesuffix("/v1"), "DISABLE_TELEMETRY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "EXECUTOR_ENGINES_DIR": str(ROOT / "engines"), "IS_SANDBOX": "1",
            "OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": stub.base_url, "OPENAI_MODEL": "stub", "GEMINI_API_KEY": "sk-1",
            "GOOGLE_GEMINI_BASE_URL": stub.base_url.removesuffix("/v1"), "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1", "npm_config_registry": "http://127.0.0.1:9/",
            "OPENCODE_CONFIG_CONTENT": json.dumps(_opencode(stub)), "NO_COLOR": "1",
        }  # fmt: skip
        (folder / ".gemini").mkdir()
        (folder / ".gemini" / "settings.json").write_text('{"security": {"auth": {"selectedType": "gemini-api-key"}}}')

    async def harness(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, [RUNYARD, "harness", *words], cwd=self.work, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=BOUND, check=False,
        )  # fmt: skip


def _opencode(stub: ModelStub) -> dict[str, Any]:
    options = {"baseURL": stub.base_url, "apiKey": "{env:OPENAI_API_KEY}"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"stub": {"tool_call": True}}}
    models = {"model": "stub/stub", "small_model": "stub/stub"}
    return {"autoupdate": False, "share": "disabled", "enabled_providers": ["stub"], "provider": {"stub": provider}} | models


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, stub: ModelStub) -> Place:
    return Place(tmp_path, stub)


def events(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def answer(ended: subprocess.CompletedProcess[str]) -> str:
    return next(each["data"]["text"] for each in events(ended) if each["kind"] == "message.completed" and each["data"]["final"])


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_real_engine_is_run_shown_kept_and_gone_on_with(place: Place, stub: ModelStub, engine: str) -> None:
    first = await place.harness(engine, "--json", "--", *ENGINES[engine](stub, "say it [[text]]"))
    assert first.returncode == 0, first.stderr
    assert answer(first) == ANSWER
    ended = events(first)[-1]["data"]
    assert (ended["outcome"], bool(ended["session"])) == ("success", True)
    kept = place.state / ended["handle"]
    stored = [json.loads(line) for line in (kept / "attempt-1" / "events.jsonl").read_text().splitlines()]
    assert stored == events(first)[:-1]
    assert json.loads((kept / "attempt-1" / "argv.json").read_text())[1:] == ENGINES[engine](stub, "say it [[text]]")
    if engine == "codex":  # its settings were arguments, and a resumption adds none
        (place.folder / ".codex").mkdir(exist_ok=True)
        provider = f'name = "stub"\nbase_url = "{stub.base_url}"\nenv_key = "STUB_KEY"\n'
        settings = f'model_provider = "stub"\n[model_providers.stub]\n{provider}'
        (place.folder / ".codex" / "config.toml").write_text(settings)
    second = await place.harness("resume", ended["handle"], "-- and again [[text]]", "--json", "--", *AGAIN.get(engine, []))
    assert second.returncode == 0, second.stderr
    assert answer(second) == ANSWER
    assert events(second)[-1]["data"]["session"] == ended["session"]
    conversation = json.dumps([request["body"] for request in stub.requests if "and again" in json.dumps(request["body"])])
    assert "say it [[text]]" in conversation, "the engine went on without what was said before"
    assert (kept / "attempt-2" / "stdout").stat().st_size > 0
