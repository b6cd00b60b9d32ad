"""A run that waits for a person lends its place to others: whole, over real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.kit import processes_with, script
from tests.e2e.test_sessions_move import BOUND, Ground, began, ground_at, texts

STEPS = ({"write": {"path": "a.txt", "text": "before"}}, {"ask": {"prompt": "which?"}})


@pytest.fixture
async def ground(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    """Two executors with one slot each, a store for snapshots, and nobody waits for long."""
    async with ground_at(tmp_path, database, monkeypatch, slots=1, park_seconds=0.5) as made:
        yield made


async def test_a_parked_run_frees_its_only_slot_and_goes_on_elsewhere_with_its_files(ground: Ground) -> None:
    run_id = await ground.replica.start(prompt=script(*STEPS), sessionId="s")
    shown = await ground.replica.phase(run_id, "parked", within=BOUND)
    assert shown["status"] == "waiting_user"
    assert processes_with("RUNYARD_RUN", f"{run_id}.") == []
    first = await ground.replica.events(run_id)
    home = began(first)["executorId"]
    assert [event["data"]["outcome"] for event in first if event["kind"] == "attempt.ended"] == ["parked"]
    busy = [await ground.replica.start(prompt=script({"say": "busy"}, {"hang": True})) for _ in ground.executors]
    for each in busy:
        await ground.said(each, "busy")
    hosts = {began(await ground.replica.events(each))["executorId"]: each for each in busy}
    assert set(hosts) == set(ground.executors), "one of them has the place of the parked run"
    [other] = set(ground.executors) - {home}
    await ground.replica.stop(hosts[other])
    await ground.over(hosts[other])
    key = next(path for path in ground.workspaces.glob("ses_*"))
    key.rename(ground.folder / "another disk")
    question = shown["pendingQuestions"][0]["questionId"]
    assert (await ground.replica.reply(run_id, question, answer=script({"read": "a.txt"}))).status_code == 200
    shown, events = await ground.over(run_id)
    assert (shown["status"], texts(events)) == ("success", ["turns: 2", "before"])
    assert began(events)["executorId"] == other
    assert began(events)["restored"]["runId"] == run_id
    assert "lostFrom" not in began(events)
    await ground.replica.stop(hosts[home])
    await ground.over(hosts[home])
