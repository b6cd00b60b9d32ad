"""The stress script against a real stack whose parts and streams are broken while it works: every failure in its class."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider
from shared.sse import FrameReader
from tests.cutting_proxy import MARK, cutting
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack, script
from tests.service.scripts.commands import Ended, run_script
from tests.service.scripts.fake_codex import engines_in

OK = {"prompt": script({"deltas": ["a", "b"], "everyMs": 10}, {"repeat": {"count": 10, "everyMs": 10, "say": "tick {i}"}})}
TIMEOUT = {"prompt": script({"say": "here"}, {"hang": True}), "providerOptions": {"timeoutMs": 1_000}}
NO_KEY = {"prompt": "hi", "provider": Provider.CODEX_APP_SERVER.value}
CUT = {"prompt": script({"say": MARK.decode()}, {"repeat": {"count": 20, "everyMs": 20, "say": "tick {i}"}})}
LONG = {"prompt": script({"say": "long"}, {"repeat": {"count": 150, "everyMs": 20, "say": "tick {i}"}})}
MIX = {"ok": OK, "timeout": TIMEOUT, "no key": NO_KEY, "cut": CUT, "long": LONG, "ok too": OK}
EXPECTED = {"ok": "none", "ok too": "none", "timeout": "timeout", "no key": "auth_missing", "cut": "stream_cut", "long": "none"}


@pytest.fixture(scope="module")
def folder() -> Any:
    with make_folder() as made:
        yield made


@pytest.fixture(scope="module")
def own_stack(folder: Path) -> Any:
    """Codex is installed here and has no key."""
    environment = {"RUNYARD_ENGINES_DIR": str(engines_in(folder / "engines"))}
    environment |= dict.fromkeys(CREDENTIALS[Provider.CODEX_APP_SERVER].names, "")
    with running_stack(folder / "state", "--executors", "2", environment=environment) as stack:
        yield stack


@pytest.fixture
async def broken(own_stack: Stack) -> AsyncGenerator[Stack]:
    fresh = Stack(own_stack.process, own_stack.ready_file, own_stack.state_dir)
    async with fresh.client:
        yield fresh


async def stress(stack: Stack, url: str, out: Path, *arguments: str) -> tuple[Ended, dict[str, Any]]:
    key = stack.facts["apiKey"]
    ended = await run_script(
        "stress", "--base-url", url, "--provider", "scripted", "--out", str(out), *arguments, RUNYARD_API_KEY=key
    )  # fmt: skip
    report = out / "report.json"
    assert report.exists(), ended
    assert key not in ended.stdout + ended.stderr + report.read_text()
    return ended, json.loads(report.read_text())


async def kill_an_executor_under_a_long_run(stack: Stack) -> None:
    """As soon as one is at work there."""
    while True:
        for run in (await stack.client.get("/api/runs", params={"status": "running", "limit": 100})).json()["items"]:
            events = await stack.events(run["runId"])
            if any(event["data"].get("text") == "long" for event in events):
                at = next(event["data"]["executorId"] for event in events if event["kind"] == "attempt.started")
                os.kill(stack.pid(at), signal.SIGKILL)
                return
        await asyncio.sleep(0.05)  # polling a condition; its caller bounds it


def frames_of(raw: bytes) -> list[int]:
    """Cursors of all whole frames, over all connections."""
    found: list[int] = []
    for connection in raw.split(b"\n\n: connected again"):
        found += [int(frame.id) for frame in FrameReader().feed(connection) if frame.id]
    return found


@pytest.mark.chaos
async def test_every_injected_fault_is_found_in_its_class_with_its_evidence(broken: Stack, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(json.dumps(list(MIX.values())))
    out = tmp_path / "out"
    async with cutting(broken.facts["apiUrl"]) as proxy, asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill_an_executor_under_a_long_run(broken))
        mix = (
            "--mix",
            str(tmp_path / "mix.json"),
            "--runs",
            "30",
            "--concurrency",
            "10",
            "--timeout",
            "50",
            "--threshold",
            "0.1",
        )
        ended, report = await stress(broken, proxy.url, out, *mix)
        killing.cancel()
    assert ended.status == 0, ended
    summary, names = report["summary"], list(MIX)
    assert summary["unclassified"] == 0
    seen = Counter((names[(each["run"] - 1) % len(names)], each["failureClass"]) for each in report["runs"])
    strays = {key: count for key, count in seen.items() if key[1] not in (EXPECTED[key[0]], "executor_lost")}
    assert not strays, f"{strays} in {dict(seen)}"
    assert {"none", "timeout", "auth_missing", "stream_cut", "executor_lost"} <= set(summary["failureClassCounts"])
    assert summary["resumedRuns"] > 0, "no run outlived a cut stream"
    for each in report["runs"]:
        if each["outcome"] != "succeeded":
            check_evidence(out / "failures" / each["runId"], each)
    assert len(list((out / "failures").iterdir())) == summary["runs"] - summary["succeeded"]
    assert (out / "latencies.png").read_bytes().startswith(b"\x89PNG")
    assert "auth_missing" in (out / "report.md").read_text()


def check_evidence(folder: Path, result: dict[str, Any]) -> None:
    raw = (folder / "sse.raw.txt").read_bytes()
    assert raw, "the raw stream is empty"
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["suggestion"]
    if result["outcome"] == "stream_cut":
        assert result["curlExit"] not in (None, 0, 28)
        assert result["errorCode"] is None, "the cut is the caller's, not the run's"
        assert (folder / "curl.stderr.txt").read_text().startswith("curl: (")
    else:
        assert frames_of(raw) == list(range(1, result["events"] + 1)), "the raw stream is not whole"
        assert (result["curlExit"], result["runErrorCode"]) == (0, result["errorCode"])


async def test_our_own_patience_is_told_from_the_runs_limit_and_from_a_question(broken: Stack, tmp_path: Path) -> None:
    asking = {"prompt": script({"ask": {"prompt": "?"}})}
    hanging = {"prompt": script({"say": "x"}, {"hang": True})}
    (tmp_path / "mix.json").write_text(json.dumps([asking, hanging, {"providerOptions": {"timeoutMs": -1}}]))
    mix = ("--mix", str(tmp_path / "mix.json"), "--runs", "3", "--concurrency", "3", "--timeout", "3")
    ended, report = await stress(broken, broken.facts["apiUrl"], tmp_path / "out", *mix)
    assert ended.status == 1
    blocked, late, refused = report["runs"]
    assert (blocked["outcome"], blocked["failureClass"], blocked["curlExit"]) == ("blocked", "run_blocked", 28)
    assert (late["outcome"], late["failureClass"], late["curlExit"]) == ("client_timeout", "timeout", 28)
    assert late["errorCode"] is None
    assert (refused["outcome"], refused["failureClass"], refused["curlExit"]) == ("refused", "request_rejected", None)
    assert (tmp_path / "out" / "failures" / "start-3" / "sse.raw.txt").read_text().startswith(": no stream")
    for each in (blocked, late):
        assert (await broken.until(each["runId"]))["status"] == "canceled", "a run nobody follows any more is stopped"


async def test_without_curl_the_same_is_found_with_httpx(broken: Stack, tmp_path: Path) -> None:
    key = {"RUNYARD_API_KEY": broken.facts["apiKey"], "PATH": str(tmp_path)}
    url, out = broken.facts["apiUrl"], tmp_path / "out"
    both = [OK, {"prompt": script({"say": "x"}, {"hang": True})}]
    (tmp_path / "mix.json").write_text(json.dumps(both))
    arguments = ("--mix", str(tmp_path / "mix.json"), "--runs", "2", "--concurrency", "2", "--timeout", "3", "--threshold", "0.5")
    ended = await run_script("stress", "--base-url", url, "--provider", "scripted", "--out", str(out), *arguments, **key)
    assert ended.status == 0, ended
    report = json.loads((out / "report.json").read_text())
    assert report["config"]["client"] == "httpx"
    assert [(each["outcome"], each["curlExit"]) for each in report["runs"]] == [("succeeded", None), ("client_timeout", None)]


async def test_a_stack_that_is_not_there_or_not_ours_is_not_stressed(broken: Stack, tmp_path: Path) -> None:
    for url, key in (("http://127.0.0.1:9", "k"), (broken.facts["apiUrl"], "wrong")):
        ended = await run_script("stress", "--base-url", url, "--out", str(tmp_path / url[-3:]), RUNYARD_API_KEY=key)
        assert (ended.status, ended.stdout) == (2, "")
    ended = await run_script("stress", "--base-url", "http://127.0.0.1:9", "--out", str(tmp_path), "--runs", "0")
    assert ended.status == 64
