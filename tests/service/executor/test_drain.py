"""Draining an executor: nothing new is taken, what lives goes on to its end and can be spoken to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.executor.kit import Inside, executor_inside

ASKING = "echo ask q1; read answer; echo $answer > said; echo say $answer; echo done"


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state") as inside:
        yield inside


async def drain(executor: Inside, verb: str = "POST") -> dict[str, Any]:
    answer = await executor.http.request(verb, "/executor/drain")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_draining_executor_takes_nothing_new_and_says_so(executor: Inside) -> None:
    assert (await drain(executor))["draining"]
    assert (await drain(executor))["draining"], "twice is once"
    assert (await executor.http.get("/executor")).json()["draining"]
    refused = await executor.start("echo done")
    assert (refused.status_code, refused.json()["code"], refused.json()["detail"]) == (
        429, "queue_full", "the executor is draining"
    )  # fmt: skip
    assert refused.headers["retry-after"] == "1"
    ready = await executor.http.get("/readyz")
    assert (ready.status_code, "the executor is draining" in ready.text) == (503, True)
    assert (await executor.http.get("/livez")).status_code == 200


async def test_what_lives_at_a_draining_executor_is_followed_answered_stopped_and_read(executor: Inside) -> None:
    await executor.begin(ASKING, "asking")
    await executor.begin("echo say up; sleep 300", "long")
    await executor.events("asking", until="interaction.requested")
    assert (await drain(executor))["live"] == 2
    assert (await executor.start(ASKING, "asking")).status_code == 200, "a repeat is no new attempt"
    reply = {"questionId": "q1", "answer": "yes"}
    assert (await executor.http.post("/provider-runs/asking/human-loop/reply", json=reply)).status_code == 200
    assert (await executor.ended("asking"))["outcome"] == "success"
    assert (await executor.http.get("/provider-runs/asking/files/said")).text == "yes\n"
    assert (await executor.show("long"))["status"] == "running"
    await executor.stop("long")
    assert (await executor.ended("long"))["outcome"] == "canceled"
    assert (await executor.http.get("/executor")).json()["live"] == 0
    assert (await executor.http.delete("/provider-runs/long")).status_code == 204


async def test_a_drain_that_is_taken_back_was_none(executor: Inside) -> None:
    await drain(executor)
    assert not (await drain(executor, "DELETE"))["draining"]
    assert (await executor.http.get("/readyz")).status_code == 200
    await executor.begin("echo done")
    assert (await executor.ended())["outcome"] == "success"


async def test_a_next_attempt_is_not_taken_by_a_draining_executor_and_the_one_before_goes_on(executor: Inside) -> None:
    await executor.begin("echo say up; sleep 300")
    await executor.said("up")
    await drain(executor)
    assert (await executor.start("echo done", attempt=2)).status_code == 429
    shown = await executor.show()
    assert (shown["attempt"], shown["status"]) == (1, "running")


async def test_an_executor_that_stops_cannot_be_told_to_go_on(executor: Inside) -> None:
    executor.app.runs.end_all()
    assert (await drain(executor, "DELETE"))["draining"]
    refused = await executor.start("echo done")
    assert (refused.status_code, refused.json()["detail"]) == (429, "the executor is stopping")
