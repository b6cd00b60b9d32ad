"""Further messages and files through the whole stack, while parts of it die."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.kit import Stack, script

OUTSIDE = ["..%2f..%2fhome%2fx", "%2e%2e/x", "/etc/passwd", "a/%2e%2e/%2e%2e/x"]


async def say(stack: Stack, run_id: str, text: str, key: str) -> dict[str, Any]:
    """Until somebody answers: the key makes it one message."""
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await stack.client.post(
                    f"/api/runs/{run_id}/messages", json={"text": text}, headers={"idempotency-key": key}
                )
            except httpx.HTTPError:
                await asyncio.sleep(0.1)  # polling a server that comes back
                continue
            assert answer.status_code == 202, answer.text
            return answer.json()


async def events_until(stack: Stack, run_id: str, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while True:
            try:
                if enough(events := await stack.events(run_id)):
                    return events
            except (httpx.HTTPError, KeyError):
                pass
            await asyncio.sleep(0.05)  # polling a condition with a bound


def told(events: list[dict[str, Any]]) -> list[str]:
    texts = [each["data"]["text"] for each in events if each["kind"] == "message.completed"]
    return [text for text in texts if text.startswith("message: ")]


def codes(events: list[dict[str, Any]]) -> list[str]:
    return [each["data"]["code"] for each in events if each["kind"] == "diagnostic"]


@pytest.mark.parametrize("victim", [None, "control-plane", "executor-manager"])
async def test_messages_reach_the_engine_once_whatever_dies_between(stack: Stack, victim: str | None) -> None:
    run_id = await stack.start(script({"ask": {"prompt": "which?"}}, {"say": "end"}))
    question = await stack.question(run_id)
    for n in range(3):
        if n == 1 and victim is not None:
            os.kill(stack.pid(victim), signal.SIGKILL)
        await say(stack, run_id, f"m{n}", f"{run_id}-{n}")
    await events_until(stack, run_id, lambda events: codes(events).count("message_delivered") >= 3)
    await stack.reply(run_id, question["questionId"], answer="blue")
    await stack.until(run_id, "success")
    events = await stack.check(run_id)
    assert told(events) == ["message: m0", "message: m1", "message: m2"]
    assert codes(events).count("message_delivered") == 3
    assert "message_undeliverable" not in codes(events)


async def test_a_finished_run_takes_no_message(stack: Stack) -> None:
    run_id = await stack.start("hi")
    await stack.until(run_id)
    answer = await stack.client.post(f"/api/runs/{run_id}/messages", json={"text": "late"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_what_a_run_left_can_be_listed_fetched_and_bundled(stack: Stack) -> None:
    wrote = [{"write": {"path": path, "text": text}} for path, text in (("a b/ü.txt", "first"), ("z.txt", "x" * 600_000))]
    run_id = await stack.start(script(*wrote, {"say": "done"}))
    await stack.until(run_id, "success")
    one = f"/api/runs/{run_id}"
    listed = (await stack.client.get(f"{one}/files")).json()["items"]
    assert {each["path"]: each["bytes"] for each in listed} == {"a b/ü.txt": 5, "z.txt": 600_000}
    got = await stack.client.get(f"{one}/files/a b/ü.txt")
    assert (got.status_code, got.text, got.headers["x-content-type-options"]) == (200, "first", "nosniff")
    assert got.headers["content-disposition"].endswith("%C3%BC.txt")
    bundle = await stack.client.get(f"{one}/bundle")
    assert bundle.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        assert archive.testzip() is None
        assert {name: len(archive.read(name)) for name in archive.namelist()} == {"a b/ü.txt": 5, "z.txt": 600_000}
    assert (await stack.client.get(f"{one}/files/none.txt")).status_code == 404
    for path in OUTSIDE:
        answer = await stack.client.get(f"{one}/files/{path}")
        assert answer.status_code in (404, 422), path


async def test_files_are_there_again_when_their_executor_is(stack: Stack) -> None:
    run_id = await stack.start(script({"write": {"path": "f", "text": "kept"}}, {"say": "done"}))
    await stack.until(run_id, "success")
    services = [each["name"] for each in stack.facts["services"]]
    for name in [each for each in services if each.startswith("executor-") and each != "executor-manager"]:
        os.kill(stack.pid(name), signal.SIGKILL)
    async with asyncio.timeout(60):
        while (answer := await stack.client.get(f"/api/runs/{run_id}/files/f")).status_code != 200:
            assert answer.status_code in (404, 503), answer.text
            await asyncio.sleep(0.1)  # polling a condition with a bound
    assert answer.text == "kept"


async def runyard(stack: Stack, *arguments: str) -> tuple[int, bytes]:
    """The command line against the stack."""
    server = {"RUNYARD_URL": stack.facts["apiUrl"], "RUNYARD_API_KEY": stack.facts["apiKey"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runyard.cli.main", *arguments, env={**os.environ, **server}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out


async def test_the_command_line_says_and_fetches(stack: Stack, tmp_path: Path) -> None:
    run_id = await stack.start(script({"write": {"path": "f.txt", "text": "kept"}}, {"ask": {"prompt": "which?"}}))
    question = await stack.question(run_id)
    assert (await runyard(stack, "say", run_id, "hello"))[0] == 0
    await stack.reply(run_id, question["questionId"], answer="blue")
    await stack.until(run_id, "success")
    assert told(await stack.events(run_id)) == ["message: hello"]
    status, listed = await runyard(stack, "files", run_id, "--json")
    assert (status, json.loads(listed)["path"]) == (0, "f.txt")
    assert await runyard(stack, "files", run_id, "--get", "f.txt") == (0, b"kept")
    assert (await runyard(stack, "files", run_id, "--get", "none"))[0] == 1
    target = tmp_path / "left.zip"
    assert (await runyard(stack, "files", run_id, "--bundle", str(target)))[0] == 0
    with zipfile.ZipFile(target) as archive:
        assert archive.read("f.txt") == b"kept"
    assert (await runyard(stack, "say", run_id, "late"))[0] == 1
