"""The full conversation against a real stack: every step, and each kind of step that does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Stack, script
from tests.service.scripts.commands import Ended, run_script

STEPS = ["ask", "reply", "followUp", "resume", "stop"]


async def converse(stack: Stack, *arguments: str) -> tuple[Ended, dict[str, Any]]:
    where = ("--base-url", stack.facts["apiUrl"], "--provider", "scripted", "--json")
    ended = await run_script("full_conversation", *where, *arguments, RUNYARD_API_KEY=stack.facts["apiKey"])
    assert stack.facts["apiKey"] not in ended.stdout + ended.stderr
    return ended, json.loads(ended.stdout)


async def test_a_whole_conversation_holds_and_its_runs_are_what_it_says(stack: Stack, tmp_path: Path) -> None:
    ended, report = await converse(stack, "--out", str(tmp_path / "report.json"))
    assert (ended.status, report["passed"]) == (0, True), report
    assert [(each["step"], each["status"]) for each in report["steps"]] == [(step, "pass") for step in STEPS]
    assert json.loads((tmp_path / "report.json").read_text()) == report
    runs = {each["step"]: each["runId"] for each in report["steps"]}
    assert [(await stack.show(runs[step]))["status"] for step in STEPS] == ["success"] * 4 + ["canceled"]
    assert (await stack.show(runs["resume"]))["sessionId"] == report["sessionId"]
    for run_id in set(runs.values()):
        await stack.check(run_id)


@pytest.mark.parametrize(
    ("lines", "verdicts", "said"),
    [
        (
            {"ask": {"prompt": script({"say": "I ask nothing"})}},
            ["fail", *["skipped"] * 3, "pass"],
            "it ended before interaction",
        ),
        (
            {"followUp": {"prompt": script({"say": "no"}), "expect": "yes"}},
            ["pass", "pass", "fail", "skipped", "pass"],
            "does not match 'yes'",
        ),
        (
            {"resume": {"prompt": script({"fail": {"code": "quota_exceeded", "message": "no more"}})}},
            ["pass", "pass", "pass", "fail", "pass"],
            "quota_exceeded, no more",
        ),
        ({"stop": {"prompt": script({"sleep": 60})}}, [*["pass"] * 4, "fail"], "not within 5 s"),
    ],
)
async def test_a_step_that_does_not_hold_is_named_and_leaves_nothing_running(
    stack: Stack, tmp_path: Path, lines: dict[str, Any], verdicts: list[str], said: str
) -> None:
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    ended, report = await converse(stack, "--lines", str(tmp_path / "lines.json"), "--timeout", "5")
    assert (ended.status, report["passed"]) == (1, False)
    assert [each["status"] for each in report["steps"]] == verdicts, report
    [broken] = [each for each in report["steps"] if each["status"] == "fail"]
    assert said in broken["detail"]
    for run_id in {each["runId"] for each in report["steps"]} - {None}:
        await stack.until(run_id)


async def test_lines_for_a_step_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text('{"sing": {"prompt": "x"}}')
    ended = await run_script("full_conversation", "--base-url", "http://127.0.0.1:9", "--lines", str(tmp_path / "lines.json"))
    assert ended.status == 64
    assert "sing" in ended.stderr
