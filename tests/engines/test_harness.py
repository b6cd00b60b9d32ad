"""``runyard harness`` with real engine CLIs: arguments untouched, output kept, events told, sessions resumed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
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
            "MINE": "passed on",
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

    def fake(self, name: str, script: str) -> None:
        """A program in the engine's stead: what it is given can be looked at."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{script}\n")
        (folder / name).chmod(0o755)
        self.env["PATH"] = f"{folder}:{self.env['PATH']}"
        self.env["EXECUTOR_ENGINES_DIR"] = str(self.folder)


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


@pytest.mark.parametrize(
    "arguments", [[], ["--"], ["-x", "two words", "", "ünï ☃", "a\tb\nc", "--json", "'q\"", "$HOME", "*"], ["--help"]]
)
async def test_arguments_reach_the_engine_byte_for_byte(place: Place, arguments: Sequence[str]) -> None:
    place.fake("codex", "print(json.dumps(sys.argv[1:])); print(os.environ['MINE'], os.getcwd())")
    ended = await place.harness("start", "codex", "--", *arguments)
    kept = next(place.state.iterdir()) / "attempt-1" / "stdout"
    told, world = kept.read_text().splitlines()
    assert json.loads(told) == list(arguments)
    assert world == f"passed on {place.work}"
    assert ended.returncode == 0


async def test_no_command_profile_is_added(place: Place) -> None:
    place.fake("codex", "print(json.dumps(sys.argv[1:]))")
    (place.folder / "profiles.json").write_text('{"codex": {"arguments": ["--from-profile"]}}')
    place.env["EXECUTOR_COMMAND_PROFILES"] = str(place.folder / "profiles.json")
    await place.harness("codex", "--", "mine")
    assert json.loads((next(place.state.iterdir()) / "attempt-1" / "stdout").read_text()) == ["mine"]


@pytest.mark.parametrize(("script", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
async def test_the_engines_own_status_is_the_harnesss(place: Place, script: str, status: int) -> None:
    place.fake("codex", script)
    assert (await place.harness("codex", "--", "x")).returncode == status


async def test_the_run_dir_is_where_the_engine_works_also_when_resumed(place: Place) -> None:
    place.fake("codex", 'print(json.dumps({"type": "thread.started", "thread_id": "t1"})); print(os.getcwd(), sys.argv[1:])')
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    await place.harness("codex", "--run-dir", str(elsewhere), "--", "x")
    handle = next(place.state.iterdir()).name
    await place.harness("resume", handle, "more words")
    said = (place.state / handle / "attempt-2" / "stdout").read_text().splitlines()[1]
    assert said == f"{elsewhere} ['exec', 'resume', '--json', 't1', '--', 'more words']"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody", "--", "x"], "invalid_request"),
        (["codex"], "invalid_request"),
        (["codex", "more", "--", "x"], "invalid_request"),
        (["codex", "--run-dir", "/no/such/folder", "--", "x"], "invalid_request"),
        (["codex", "--surprise", "--", "x"], "invalid_request"),
        (["resume", "unknown", "hi"], "not_found"),
        (["resume", "../..", "hi"], "not_found"),
        (["resume", "one"], "invalid_request"),
        (["scripted", "--", "x"], "capability_unavailable"),
        (["iflow", "--", "x"], "capability_unavailable"),
    ],
)
async def test_what_cannot_be_begun_is_told_as_json_with_status_2(place: Place, words: list[str], code: str) -> None:
    ended = await place.harness(*words)
    assert ended.returncode == 2
    assert json.loads(ended.stderr)["code"] == code
    assert not place.state.exists()


async def test_a_session_that_was_never_told_cannot_be_resumed(place: Place) -> None:
    place.fake("codex", "print('nothing of note')")
    await place.harness("codex", "--", "x")
    ended = await place.harness("resume", next(place.state.iterdir()).name, "hi")
    assert (ended.returncode, json.loads(ended.stderr)["code"]) == (2, "conflict")


async def test_what_an_engine_leaves_behind_is_ended_with_it(place: Place) -> None:
    place.fake("codex", "import subprocess; p = subprocess.Popen(['sleep', '303'], start_new_session=True); print(p.pid)")
    ended = await place.harness("codex", "--", "x")
    left = int((next(place.state.iterdir()) / "attempt-1" / "stdout").read_text())
    assert ended.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(left, signal.SIGKILL)
