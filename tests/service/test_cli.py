"""The command line as a person's shell sees it: exit statuses, output, Ctrl-C; against a fake control plane."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from runyard.local_stack.stack import lock_state_dir
from tests.service.command_line import BOUND_SECONDS, ended, runyard, start, told
from tests.service.fake_api import AT, KEY, RAW, SNAPSHOT, FakeApi, ending, event, serving

HELLO = [
    event(1, "run.status", status="queued"),
    event(2, "message.delta", messageId="m1", text="Hel"),
    event(3, "message.delta", messageId="m1", text="lo\x1b[2J"),
    event(4, "message.completed", messageId="m1", text="Hello", final=True),
    event(5, "tool.started", toolId="t1", name="shell", input={"command": "ls"}),
    event(6, "tool.completed", toolId="t1", name="shell", status="completed", output="README.md"),
]
QUESTION = {"questionId": "q1", "type": "question", "prompt": "Which?", "options": [{"label": "red"}, {"label": "blue"}]}


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with serving(FakeApi([*HELLO, ending(7, "success", result="Hello")])) as fake:
        yield fake


@pytest.mark.parametrize(("status", "exit_status"), [("success", 0), ("error", 1), ("timeout", 3), ("canceled", 4)])
async def test_the_exit_status_mirrors_the_run(api: FakeApi, home: Path, status: str, exit_status: int) -> None:
    api.events[-1] = ending(7, status, errorCode=None if status == "success" else "timeout", hint="try again")
    assert (await runyard(api, "run", "hi", home=home)).status == exit_status
    assert (await runyard(api, "attach", "run_1", home=home)).status == exit_status


async def test_the_answer_is_on_stdout_and_what_happened_is_on_stderr(api: FakeApi, home: Path) -> None:
    ran = await runyard(api, "run", "hi", "--provider", "scripted", "--engine-mode", "plan", "--session", "s1", home=home)
    assert ran.stdout == "Hello[2J\n"
    assert "▸ shell" in ran.stderr
    assert "✓ shell" in ran.stderr
    assert "✓ success" in ran.stderr
    body = api.asked("/api/runs/start")[0][3]
    assert body == {"prompt": "hi", "provider": "scripted", "engineMode": "plan", "sessionId": "s1"}


async def test_json_is_one_event_a_line_as_it_was_stored(api: FakeApi, home: Path) -> None:
    ran = await runyard(api, "run", "hi", "--json", home=home)
    assert [json.loads(line) for line in ran.stdout.splitlines()] == api.events


async def test_a_prompt_can_come_from_stdin(api: FakeApi, home: Path) -> None:
    process = await start(api, "run", "-", "--detach", home=home, stdin=PIPE)
    async with asyncio.timeout(BOUND_SECONDS):
        stdout, _ = await process.communicate(b"long\nprompt\n")
    assert (process.returncode, stdout) == (0, b"run_1\n")
    assert api.asked("/api/runs/start")[0][3]["prompt"] == "long\nprompt\n"
    assert not api.asked("/api/runs/run_1/stream")


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "hi", "--nonsense"], ["reply", "run_1", "q1"], ["up", "--executors", "0"]]
)
async def test_wrong_arguments_are_status_two(api: FakeApi, home: Path, arguments: list[str]) -> None:
    assert (await runyard(api, *arguments, home=home)).status == 2


async def test_an_invalid_request_is_status_two_and_any_other_refusal_one(api: FakeApi, home: Path) -> None:
    api.refuse["/api/runs/start"] = (422, {"code": "invalid_request", "detail": "provider: there is no provider 'x'"})
    ran = await runyard(api, "run", "hi", "--provider", "x", home=home)
    assert (ran.status, "there is no provider" in ran.stderr) == (2, True)
    api.refuse["/api/runs/start"] = (429, {"code": "queue_full", "detail": "the queue is full", "hint": "wait"})
    ran = await runyard(api, "run", "hi", home=home)
    assert (ran.status, "the queue is full (wait)" in ran.stderr) == (1, True)


async def test_nobody_there_is_status_five(home: Path) -> None:
    ran = await runyard(None, "runs", home=home)
    assert (ran.status, "runyard up" in ran.stderr) == (5, True)
    ran = await runyard(None, "run", "hi", "--url", "http://127.0.0.1:9", home=home)
    assert (ran.status, "no answer from http://127.0.0.1:9" in ran.stderr) == (5, True)


async def test_the_local_stack_is_found_by_its_ready_file_and_its_key_goes_nowhere_else(api: FakeApi, home: Path) -> None:
    (home / "runyard").mkdir()
    (home / "runyard" / "ready.json").write_text(json.dumps({"apiUrl": api.url, "apiKey": KEY}))
    with lock_state_dir(home / "runyard"):
        assert (await runyard(None, "runs", home=home)).status == 0
        async with serving(FakeApi()) as other:
            assert (await runyard(None, "runs", "--url", other.url, home=home)).status == 1
            assert "authorization" not in other.requests[0][2]


async def test_the_ready_file_of_a_stack_that_was_killed_gives_its_key_to_nobody(api: FakeApi, home: Path) -> None:
    (home / "runyard").mkdir()
    (home / "runyard" / "ready.json").write_text(json.dumps({"apiUrl": api.url, "apiKey": KEY}))
    lock_state_dir(home / "runyard").close()
    assert (await runyard(None, "runs", home=home)).status == 5
    assert (await runyard(None, "runs", "--url", api.url, home=home)).status == 1
    assert "authorization" not in api.requests[0][2]


async def test_lists_are_tables_or_json(api: FakeApi, home: Path) -> None:
    api.pending = [{**QUESTION, "runId": "run_1"}]
    assert "run_1" in (await runyard(api, "runs", "--status", "success", home=home)).stdout
    assert api.requests[-1][1] == "/api/runs?status=success&limit=20"
    assert "Which?" in (await runyard(api, "pending", home=home)).stdout
    assert json.loads((await runyard(api, "pending", "--json", home=home)).stdout)["questionId"] == "q1"


async def test_a_list_in_a_pipe_has_every_column_whole(api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in {"model": "x[/b] " + "y" * 70, "provider": "codex-app-server", "status": "success"}.items():
        monkeypatch.setitem(SNAPSHOT, name, said)
    _, row = (await runyard(api, "runs", home=home)).stdout.splitlines()
    assert row.split() == ["run_1", "success", "codex-app-server", AT[:19], "x[/b]", "y" * 70]


async def test_a_reply_needs_no_question_id_when_one_question_waits(api: FakeApi, home: Path) -> None:
    api.pending = [{**QUESTION, "runId": "run_1"}]
    assert (await runyard(api, "reply", "run_1", "--answer", "blue", home=home)).status == 0
    assert api.asked("/api/runs/run_1/human-loop/reply")[0][3] == {"questionId": "q1", "answer": "blue"}
    api.pending = []
    ran = await runyard(api, "reply", "run_1", "--answer", "blue", home=home)
    assert (ran.status, "no question waits" in ran.stderr) == (1, True)


async def test_a_stop_says_what_became_of_the_run(api: FakeApi, home: Path) -> None:
    ran = await runyard(api, "stop", "run_1", home=home)
    assert (ran.status, ran.stdout) == (0, "run_1 is stopping\n")


async def test_a_first_interrupt_detaches_and_the_run_goes_on(api: FakeApi, home: Path) -> None:
    api.held_until_reply = 7
    process = await start(api, "attach", "run_1", home=home)
    await told(process, "✓ shell")
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.status == 130
    assert "runyard attach run_1" in ran.stderr
    assert not api.asked("/api/runs/run_1/stop")


async def test_a_second_interrupt_stops_the_run_and_waits_for_its_end(api: FakeApi, home: Path) -> None:
    api.held_until_reply = 7
    api.events[-1] = ending(7, "canceled")
    process = await start(api, "attach", "run_1", home=home)
    await told(process, "✓ shell")
    process.send_signal(signal.SIGINT)
    await told(process, "The run goes on")
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).status == 4
    assert len(api.asked("/api/runs/run_1/stop")) == 1


async def test_doctor_tells_names_of_credentials_and_never_their_values(
    api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    for arguments in (["doctor", "--json"], ["doctor"]):
        ran = await runyard(None, *arguments, home=home)
        assert ran.status == 0
        assert "OPENAI_API_KEY" in ran.stdout
        assert "sk-very-secret" not in ran.stdout + ran.stderr
    found = json.loads((await runyard(api, "doctor", "--json", home=home)).stdout)
    assert found["postgres"]["ok"]
    assert found["stack"]["reachable"]


async def test_doctor_outlives_an_engine_that_cannot_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"codex": "no program at all", "claude": "#!/nowhere/interpreter", "gemini": "#!/bin/sh\nexit 7"}
    for name, text in programs.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runyard.cli.main", "doctor", "--json", stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=home
    )
    ran = await ended(process)
    engines = json.loads(ran.stdout)["engines"]
    assert (ran.status, ran.stderr) == (0, "")
    for name in programs:
        assert (engines[name]["installed"], engines[name]["version"]) == (True, None)
    assert engines["codex"]["reason"].startswith("does not run: ")
    assert engines["claude"]["reason"].startswith("does not run: ")
    assert engines["gemini"]["reason"] == "did not say its version (exit status 7)"


@pytest.mark.parametrize("arguments", [["runs", "--json"], ["attach", "run_1", "--json"], ["runs"], ["logs", "run_1"]])
async def test_a_reader_who_leaves_ends_the_command_without_a_word(api: FakeApi, home: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await start(api, *arguments, home=home, stdout=write)
    os.close(write)
    async with asyncio.timeout(BOUND_SECONDS):
        _, stderr = await process.communicate()
    assert b"Broken" not in stderr
    assert b"Traceback" not in stderr
    assert process.returncode == 1


async def test_a_local_server_is_reached_whatever_proxy_is_set(api: FakeApi, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert (await runyard(api, "attach", "run_1", home=home)).status == 0


@pytest.mark.parametrize("run_id", ["../apps", "a/b", "a?x=1", "ü", "no such"])
async def test_an_id_is_never_taken_for_a_path(api: FakeApi, home: Path, run_id: str) -> None:
    await runyard(api, "stop", run_id, home=home)
    ((_, path, _, _),) = api.requests
    assert path == f"/api/runs/{quote(run_id, safe='')}/stop"


@pytest.mark.parametrize("url", ["nowhere", "http://[::", "ftp://x", "http://a b"])
async def test_an_address_that_is_none_is_nobody_there(home: Path, url: str) -> None:
    ran = await runyard(None, "runs", "--url", url, home=home)
    assert "Traceback" not in ran.stderr
    assert ran.status == 5


async def test_logs_are_bytes_or_json(api: FakeApi, home: Path) -> None:
    assert (await runyard(api, "logs", "run_1", home=home)).stdout == "raw output\n"
    (line,) = (await runyard(api, "logs", "run_1", "--json", home=home)).stdout.splitlines()
    assert json.loads(line)["text"] == "raw output\n"


async def test_logs_of_several_pages_are_of_one_attempt(api: FakeApi, home: Path) -> None:
    first, second = "/api/runs/run_1/logs/stdout?byteFrom=0", "/api/runs/run_1/logs/stdout?byteFrom=3&attempt=2"
    api.answers[first] = RAW | {"attempt": 2, "byteTo": 3, "totalBytes": 7, "base64": "b25l"}
    api.answers[second] = RAW | {"attempt": 2, "byteFrom": 3, "byteTo": 7, "totalBytes": 7, "base64": "dHdvCg=="}
    assert (await runyard(api, "logs", "run_1", home=home)).stdout == "onetwo\n"


@pytest.mark.parametrize("as_json", [["--json"], []])
async def test_all_questions_that_wait_are_listed(api: FakeApi, home: Path, as_json: list[str]) -> None:
    pages = {"/api/human-loop/pending?limit=500": ("q1", "c1"), "/api/human-loop/pending?cursor=c1&limit=500": ("q2", None)}
    for path, (question_id, cursor) in pages.items():
        api.answers[path] = {"items": [{**QUESTION, "runId": "run_1", "questionId": question_id}], "nextCursor": cursor}
    ran = await runyard(api, "pending", *as_json, home=home)
    assert (ran.status, "q1" in ran.stdout, "q2" in ran.stdout) == (0, True, True)
