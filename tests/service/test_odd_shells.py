"""What a shell may hand to the command and nobody expects: closed streams, other encodings, bytes that are no text."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.command_line import BOUND_SECONDS, Ran, ended, environment_of, runyard, start
from tests.service.fake_api import FakeApi, ending, event, serving

ANSWER = "✓ für alle"
NO_TEXT = os.fsdecode(b"caf\xe9")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with serving(FakeApi([event(1, "message.completed", messageId="m1", text=ANSWER), ending(2, "success")])) as fake:
        yield fake


async def without_stream(api: FakeApi, home: Path, number: int, *arguments: str) -> Ran:
    """The command as a shell starts it after ``<&-``, ``>&-`` or ``2>&-``."""
    command = [sys.executable, "-m", "runyard.cli.main", *arguments]
    program = f"import os; os.close({number}); os.execv({sys.executable!r}, {command!r})"
    environment = environment_of(api, home)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=PIPE, env=environment)
    return await ended(process)


@pytest.mark.parametrize("arguments", [["run", "hi"], ["attach", "run_1", "--json"], ["runs"], ["logs", "run_1"]])
async def test_without_any_stdout_a_command_does_its_work(api: FakeApi, home: Path, arguments: list[str]) -> None:
    ran = await without_stream(api, home, 1, *arguments)
    assert (ran.status, "Traceback" in ran.stderr) == (0, False)


async def test_without_any_stderr_a_run_is_followed_and_a_refusal_keeps_its_status(api: FakeApi, home: Path) -> None:
    ran = await without_stream(api, home, 2, "run", "hi")
    assert (ran.status, ran.stdout) == (0, f"{ANSWER}\n")
    assert (await without_stream(api, home, 2, "runs", "--url", "http://127.0.0.1:9")).status == 5


async def test_without_any_stdin_a_run_is_followed_and_a_prompt_from_there_is_empty(api: FakeApi, home: Path) -> None:
    ran = await without_stream(api, home, 0, "run", "hi")
    assert (ran.status, ran.stdout) == (0, f"{ANSWER}\n")
    assert (await without_stream(api, home, 0, "run", "-")).status == 0
    assert [body["prompt"] for _, _, _, body in api.asked("/api/runs/start")] == ["hi", ""]


async def test_an_answer_that_the_terminal_cannot_show_is_shown_as_far_as_it_can(
    api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    process = await start(api, "attach", "run_1", home=home)
    async with asyncio.timeout(BOUND_SECONDS):
        stdout, _ = await process.communicate()
    assert (process.returncode, stdout) == (0, "? für alle\n".encode("latin-1"))


async def test_json_is_whole_whatever_the_terminal_can_show(api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    ran = await runyard(api, "attach", "run_1", "--json", home=home)
    assert [json.loads(line) for line in ran.stdout.splitlines()] == api.events
    assert ran.status == 0


@pytest.mark.parametrize(
    "arguments", [["run", NO_TEXT], ["say", "run_1", NO_TEXT], ["attach", NO_TEXT], ["runs", "--status", NO_TEXT]]
)
async def test_an_argument_that_is_no_text_is_a_wrong_argument(api: FakeApi, home: Path, arguments: list[str]) -> None:
    ran = await runyard(api, *arguments, home=home)
    assert (ran.status, "UTF-8" in ran.stderr, "Traceback" in ran.stderr) == (2, True, False)
    assert not api.requests


@pytest.mark.parametrize("arguments", [["run", "-"], ["say", "run_1", "-"]])
async def test_a_stdin_that_is_no_text_is_a_wrong_argument(api: FakeApi, home: Path, arguments: list[str]) -> None:
    process = await start(api, *arguments, home=home, stdin=PIPE)
    async with asyncio.timeout(BOUND_SECONDS):
        _, stderr = await process.communicate(b"caf\xe9")
    assert (process.returncode, b"UTF-8" in stderr, b"Traceback" in stderr) == (2, True, False)
    assert not api.requests


@pytest.mark.parametrize("target", [".", "..", "/", ""])
async def test_a_bundle_is_written_to_a_file_and_not_to_a_folder(api: FakeApi, home: Path, target: str) -> None:
    ran = await runyard(api, "files", "run_1", "--bundle", target, home=home)
    assert (ran.status, "is a folder" in ran.stderr) == (2, True)
    assert not api.requests
