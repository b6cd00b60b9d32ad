"""An engine that waits for a person gives its process back; one that does not wait is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.executor.kit import Inside, executor_inside, is_running, until
from tests.service.executor.shell_engine import ShellAdapter

ASK = "echo session s1; echo say $$; echo ask q1; read answer; echo say got $answer; echo done"
ON_TERM = "trap '{}; exit 0' TERM; echo session s1; echo ask q1; while :; do sleep 0.05; done"


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path, slots=2) as running:
        yield running


async def waiting(here: Inside, script: str = ASK, run_id: str = "run_1", **more: Any) -> None:
    await here.begin(script, run_id, **more)
    await here.events(run_id, until="interaction.requested")


async def park(here: Inside, *questions: str, run_id: str = "run_1", attempt: int = 1) -> httpx.Response:
    body = {"questionIds": list(questions or ("q1",))}
    return await here.http.post(f"/provider-runs/{run_id}/park", params={"attempt": attempt}, json=body)


async def reply(here: Inside, question: str = "q1") -> httpx.Response:
    return await here.http.post("/provider-runs/run_1/human-loop/reply", json={"questionId": question, "answer": "yes"})


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def resolutions(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["how"] for event in events if event["kind"] == "interaction.resolved"]


async def test_an_engine_that_waits_is_ended_and_its_question_stays_open(tmp_path: Path) -> None:
    async with executor_inside(tmp_path, slots=1) as here:
        await waiting(here)
        pid = int(await here.said(""))
        assert (await here.start("echo done", "next")).status_code == 429
        assert (await park(here)).json() == {"runId": "run_1", "attempt": 1, "status": "parking"}
        events = await here.events()
        assert resolutions(events) == []
        assert events[-1]["kind"] == "attempt.ended"
        assert (events[-1]["data"]["outcome"], events[-1]["data"].get("errorCode")) == ("parked", None)
        assert not is_running(pid)
        await here.begin("echo done", "next")
        assert (await here.ended("next"))["outcome"] == "success"


@pytest.mark.parametrize("last_words", ["echo withdraw q1", "echo withdraw q1; echo say over", "kill -KILL $$"])
async def test_what_an_engine_says_of_its_question_while_it_is_parked_is_not_told(executor: Inside, last_words: str) -> None:
    await waiting(executor, ON_TERM.format(last_words))
    await park(executor)
    events = await executor.events()
    assert resolutions(events) == []
    assert events[-1]["data"]["outcome"] == "parked"


async def test_an_engine_that_does_not_hear_is_ended_all_the_same(executor: Inside) -> None:
    script = "trap '' TERM; echo session s1; echo ask q1; while :; do sleep 0.05; done"
    await waiting(executor, script, timeouts={"stopGraceMs": 100})
    await park(executor)
    assert (await executor.ended())["outcome"] == "parked"


async def test_an_engine_that_finished_in_time_has_finished(executor: Inside) -> None:
    await waiting(executor, ON_TERM.format("echo done"))
    await park(executor)
    events = await executor.events()
    assert (resolutions(events), events[-1]["data"]["outcome"]) == (["withdrawn"], "success")
    assert refusal(await park(executor)) == (409, "conflict")


async def test_a_park_may_come_again_at_any_time(tmp_path: Path) -> None:
    async with executor_inside(tmp_path) as here:
        await waiting(here, ON_TERM.format("sleep 0.2"))
        answers = await asyncio.gather(*(park(here) for _ in range(3)))
        assert [answer.json()["status"] for answer in answers] == ["parking"] * 3
        await here.ended()
        await until(lambda: not here.app.runs.live())
        assert (await park(here)).json()["status"] == "parked"
    async with executor_inside(tmp_path) as here:
        assert (await park(here)).json()["status"] == "parked", "it knows so from its journal"


@pytest.mark.parametrize("questions", [("q2",), ("q1", "q2")])
async def test_an_engine_that_waits_for_something_else_is_left_alone(executor: Inside, questions: tuple[str, ...]) -> None:
    await waiting(executor)
    assert refusal(await park(executor, *questions)) == (409, "conflict")
    assert (await reply(executor)).status_code == 200
    assert (await executor.ended())["outcome"] == "success"


async def test_an_engine_that_was_answered_is_left_alone(executor: Inside) -> None:
    await waiting(executor, "echo session s1; echo ask q1; read answer; read message; echo say $message; echo done")
    assert (await reply(executor)).status_code == 200
    assert refusal(await park(executor)) == (409, "conflict")
    await executor.http.post("/provider-runs/run_1/messages", json={"messageId": "m", "text": "on"})
    assert (await executor.ended())["outcome"] == "success"


async def test_an_engine_with_a_further_question_is_left_alone(executor: Inside) -> None:
    await waiting(executor, "echo session s1; echo ask q1; echo ask q2; read a; read b; echo done")
    await until(lambda: len(executor.app.runs.find("run_1", 1).snapshot().open_questions) == 2)
    assert refusal(await park(executor)) == (409, "conflict")
    assert (await park(executor, "q2", "q1")).json()["status"] == "parking"
    assert (await executor.ended())["outcome"] == "parked"


async def test_a_stopping_or_an_ended_attempt_is_not_parked(executor: Inside) -> None:
    await waiting(executor, ON_TERM.format("sleep 0.2"))
    await executor.stop()
    assert refusal(await park(executor)) == (409, "conflict")
    assert (await executor.ended())["outcome"] == "canceled"
    assert refusal(await park(executor)) == (409, "conflict")


async def test_a_reply_comes_too_late_for_an_engine_that_is_being_parked_and_a_stop_changes_nothing(executor: Inside) -> None:
    await waiting(executor, ON_TERM.format("sleep 0.2"))
    await park(executor)
    assert refusal(await reply(executor)) == (409, "conflict")
    await executor.stop()
    events = await executor.events()
    assert [event["data"]["outcome"] for event in events if event["kind"] == "attempt.ended"] == ["parked"]
    assert resolutions(events) == []


async def test_what_could_not_be_gone_on_with_is_not_parked(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "a") as here:
        await waiting(here, "echo ask q1; read answer; echo done")
        assert refusal(await park(here)) == (409, "capability_unavailable")
        assert refusal(await park(here, run_id="run_none")) == (404, "not_found")
    async with executor_inside(tmp_path / "b", ShellAdapter(questions=True)) as here:
        await waiting(here)
        assert refusal(await park(here)) == (409, "capability_unavailable")
        assert (await reply(here)).status_code == 200
        assert (await here.ended())["outcome"] == "success"
