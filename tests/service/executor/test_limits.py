"""The limits of an attempt, each against a real child process: which one ended it, what is said of it, what counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.executor.kit import Inside, executor_inside, is_running, until

NOISE = "while :; do echo noise; echo noise >&2; sleep 0.02; done"
WORK = "while :; do echo say x; sleep 0.02; done"


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


@pytest.mark.parametrize(
    ("script", "timeouts", "code", "said"),
    [
        (WORK, {"runMs": 400, "rule": "app"}, "timeout", "the run took longer than 400 ms (app)"),
        ("echo say x; sleep 300", {"idleMs": 300}, "idle_timeout", "no output for 300 ms; the last event was message.completed"),
        ("sleep 300", {"idleMs": 300}, "idle_timeout", "no output for 300 ms; the last event was attempt.started"),
        ("sleep 300", {"firstEventMs": 300}, "idle_timeout", "no event within 300 ms of its start; it printed nothing"),
        (NOISE, {"firstEventMs": 300, "idleMs": 5_000}, "idle_timeout", "no event within 300 ms of its start; it printed "),
        (
            "while :; do echo noise; done",
            {"firstEventMs": 300},
            "idle_timeout",
            "no event within 300 ms of its start; it printed ",
        ),
        (
            "trap '' INT TERM; echo say x; sleep 300 & wait; wait",
            {"idleMs": 300, "stopGraceMs": 100},
            "idle_timeout",
            "no output",
        ),
    ],
    ids=["run", "idle after words", "idle from its start", "no first event", "noise and no event", "flood", "deaf to signals"],
)
async def test_the_limit_that_passed_ends_the_attempt_and_is_named(
    executor: Inside, script: str, timeouts: dict[str, Any], code: str, said: str
) -> None:
    await executor.begin(script, timeouts=timeouts)
    pid = (await executor.show())["pid"]
    ended = await executor.ended()
    assert (ended["outcome"], ended["errorCode"]) == ("timeout", code)
    assert ended["errorMessage"].startswith(said)
    assert pid is None or not is_running(pid)


async def test_an_engine_that_told_something_in_time_is_only_held_to_the_others(executor: Inside) -> None:
    await executor.begin(
        "echo say x; for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo noise; done; echo done", timeouts={"firstEventMs": 400}
    )
    ended = await executor.ended()
    assert (ended["outcome"], ended["activeMs"] > 700) == ("success", True)


async def test_every_limit_and_its_rule_stand_in_the_first_event(executor: Inside) -> None:
    given = {
        "runMs": 11_000, "idleMs": 12_000, "firstEventMs": 13_000, "interactionMs": 14_000, "stopGraceMs": 100, "rule": "app",
        "rules": {"idleMs": "providerOptions.idleTimeoutMs", "firstEventMs": "default", "interactionMs": "default"},
    }  # fmt: skip
    await executor.begin("echo done", timeouts=given)
    started = (await executor.events())[0]
    assert (started["kind"], started["data"]["timeouts"]) == ("attempt.started", given)


async def test_a_wait_for_a_person_longer_than_every_limit_ends_nothing_and_the_limits_go_on_after_it(executor: Inside) -> None:
    limits = {"runMs": 900, "idleMs": 400, "firstEventMs": 400}
    await executor.begin(f"echo ask q1; read answer; {WORK}", timeouts=limits)
    await executor.events(until="interaction.requested")
    began = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - began > 1.3)
    assert (await executor.show())["openQuestions"] == ["q1"]
    reply = {"questionId": "q1", "answer": "yes"}
    assert (await executor.http.post("/provider-runs/run_1/human-loop/reply", json=reply)).status_code == 200
    ended = await executor.ended()
    assert (ended["errorCode"], ended["activeMs"] >= 900) == ("timeout", True)


async def test_silence_after_an_answer_is_counted_from_the_answer(executor: Inside) -> None:
    await executor.begin("echo ask q1; read answer; sleep 300", timeouts={"idleMs": 500})
    await executor.events(until="interaction.requested")
    reply = {"questionId": "q1", "answer": "yes"}
    assert (await executor.http.post("/provider-runs/run_1/human-loop/reply", json=reply)).status_code == 200
    ended = await executor.ended()
    assert (ended["errorCode"], ended["errorMessage"]) == (
        "idle_timeout", "no output for 500 ms; the last event was interaction.resolved"
    )  # fmt: skip
    assert ended["activeMs"] >= 500


async def test_two_open_questions_hold_the_clock_until_both_are_answered(executor: Inside) -> None:
    await executor.begin("echo ask q1; echo ask q2; read one; read two; echo done", timeouts={"runMs": 700, "idleMs": 500})
    await until(lambda: len(executor.app.runs.find("run_1", 1).snapshot().open_questions) == 2)
    for question in ("q1", "q2"):
        began = asyncio.get_running_loop().time()
        await until(lambda began=began: asyncio.get_running_loop().time() - began > 0.6)
        reply = {"questionId": question, "answer": "yes"}
        assert (await executor.http.post("/provider-runs/run_1/human-loop/reply", json=reply)).status_code == 200
    ended = await executor.ended()
    assert (ended["outcome"], ended["activeMs"] < 700) == ("success", True)


@pytest.mark.parametrize(
    ("timeouts", "field"),
    [
        ({"runMs": 86_400_001}, "timeouts.runMs"),
        ({"idleMs": 0}, "timeouts.idleMs"),
        ({"firstEventMs": -1}, "timeouts.firstEventMs"),
        ({"appMs": 86_400_001}, "timeouts.appMs"),
        ({"interactionMs": 0}, "timeouts.interactionMs"),
    ],
)
async def test_a_limit_out_of_bounds_is_refused_by_name(executor: Inside, timeouts: dict[str, Any], field: str) -> None:
    answer = await executor.start("echo done", timeouts=timeouts)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])
