"""A session whose executor is gone, drains or is full goes on at another one, with its files and its engine's session.

One control plane, one manager, two executors. Their workspaces stand at the same path, and as each machine has a disk of its own,
what one of them has there is taken away before the other one begins.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from control_plane.app import build_app
from control_plane.settings import Settings
from tests.e2e.kit import script
from tests.e2e.test_fleet import KEYS, Executor
from tests.loopback import serving, unused_port
from tests.service.control_plane.conftest import Replica
from tests.service.executor_manager.kit import Manager, manager_process

BOUND = 40.0
ADDRESSES = ("127.0.0.2", "127.0.0.3")
WRITE = script({"write": {"path": "notes/a.txt", "text": "kumquat"}}, {"say": "written"})
READ = script({"read": "notes/a.txt"})


@dataclass
class Ground:
    """``replica``: the control plane as its callers see it."""

    folder: Path
    executors: dict[str, Executor]
    manager: Manager
    replica: Replica

    @property
    def workspaces(self) -> Path:
        return self.folder / "workspaces"

    def another_disk(self) -> None:
        """Whoever looks now is another machine: the workspaces of the one before are not there."""
        for path in self.workspaces.glob("*"):
            shutil.rmtree(path)

    async def ready(self, *names: str) -> None:
        """Until exactly these can be placed at."""
        async with asyncio.timeout(BOUND):
            while True:
                fleet = await self.manager.fleet()
                able = {each["state"]["executorId"] for each in fleet if each["reachable"] and not each["state"]["draining"]}
                if able == set(names):
                    return
                await asyncio.sleep(0.05)  # polling a condition with a bound

    async def run(self, prompt: str, session: str | None = "s", **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        run_id = await self.replica.start(prompt=prompt, sessionId=session, **more)
        return await self.over(run_id)

    async def over(self, run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        shown = await self.replica.until(run_id, "success", "error", "timeout", "canceled", within=BOUND)
        events = await self.replica.events(run_id)
        assert [event["cursor"] for event in events] == list(range(1, len(events) + 1))
        assert "snapshot" not in {event["kind"] for event in events}, "it is between executor and control plane"
        return shown, events

    async def said(self, run_id: str, word: str) -> None:
        """Until the run has said it."""
        async with asyncio.timeout(BOUND):
            while word not in texts(await self.replica.events(run_id)):
                await asyncio.sleep(0.05)  # polling a condition with a bound


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["text"] for event in events if event["kind"] == "message.completed"]


def began(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the last attempt ran, and what its files are."""
    return [event["data"] for event in events if event["kind"] == "attempt.started"][-1]


def last_work(events: list[dict[str, Any]]) -> int:
    """The cursor of the last event that an executor told before its attempt's end."""
    return [event["cursor"] for event in events if event["kind"] == "attempt.ended"][-1] - 1


@asynccontextmanager
async def ground_at(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch, *, store: bool = True, slots: int = 2, park_seconds: float = 600
) -> AsyncGenerator[Ground]:
    monkeypatch.setenv("EXECUTOR_WORKSPACE_ROOT", str(folder / "workspaces"))
    if store:
        monkeypatch.setenv("EXECUTOR_SNAPSHOT_STORE", f"file://{folder}/store")
    port, own = unused_port(), unused_port()
    executors = {f"exec-{n}": Executor(f"exec-{n}", at, port, folder / f"exec-{n}", slots) for n, at in enumerate(ADDRESSES, 1)}
    async with AsyncExitStack() as stack:
        for each in executors.values():
            stack.push_async_callback(each.end)
            each.begin()
        manager = await stack.enter_async_context(manager_process(",".join(each.url for each in executors.values()), own, **KEYS))
        settings = Settings(
            database_url=SecretStr(database),
            manager_urls=[manager.url],
            admin_key=SecretStr("admin"),
            service_token=SecretStr("t"),
            park_seconds=park_seconds,
        )
        url = await stack.enter_async_context(serving(build_app(settings)))
        client = httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer admin"}, timeout=30, trust_env=False)
        ground = Ground(folder, executors, manager, Replica(url, await stack.enter_async_context(client)))
        await ground.ready(*executors)
        yield ground


@pytest.fixture
async def ground(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    async with ground_at(tmp_path, database, monkeypatch) as made:
        yield made


async def test_a_session_goes_on_when_its_executor_is_gone_for_good(ground: Ground) -> None:
    shown, first = await ground.run(WRITE)
    home = began(first)["executorId"]
    assert shown["status"] == "success"
    await ground.executors[home].killed()
    ground.another_disk()
    shown, second = await ground.run(READ)
    assert (shown["status"], texts(second)) == ("success", ["turns: 2", "kumquat"])
    started = began(second)
    assert started["executorId"] != home
    assert started["resumed"] is True
    assert started["restored"] == {
        "executorId": home, "runId": first[0]["runId"], "attempt": 1, "cursor": last_work(first)
    }  # fmt: skip
    assert "lostFrom" not in started


async def test_a_drained_executors_session_moves_with_its_files_and_may_come_back(ground: Ground) -> None:
    _, first = await ground.run(WRITE)
    home = began(first)["executorId"]
    [other] = set(ground.executors) - {home}
    left = ground.folder / "disk of the first"
    drain = f"/api/executors/{home}/drain"
    assert (await ground.manager.http.post(drain)).status_code == 200
    shutil.copytree(ground.workspaces, left)
    ground.another_disk()
    _, second = await ground.run(script({"read": "notes/a.txt"}, {"write": {"path": "notes/a.txt", "text": "loquat"}}))
    assert (began(second)["executorId"], texts(second)) == (other, ["turns: 2", "kumquat"])
    assert (await ground.manager.http.request("DELETE", drain)).status_code == 200
    assert (await ground.manager.http.post(f"/api/executors/{other}/drain")).status_code == 200
    shutil.rmtree(ground.workspaces)
    shutil.copytree(left, ground.workspaces)
    _, third = await ground.run(READ)
    assert (began(third)["executorId"], texts(third)) == (home, ["turns: 3", "loquat"]), "what it had itself was out of date"


async def test_a_session_does_not_wait_for_an_executor_that_is_full(ground: Ground) -> None:
    _, first = await ground.run(WRITE)
    home = began(first)["executorId"]
    [other] = set(ground.executors) - {home}
    assert (await ground.manager.http.post(f"/api/executors/{other}/drain")).status_code == 200
    busy = [await ground.replica.start(prompt=script({"say": "busy"}, {"hang": True})) for _ in range(2)]
    for run_id in busy:
        await ground.said(run_id, "busy")
    assert (await ground.manager.http.request("DELETE", f"/api/executors/{other}/drain")).status_code == 200
    key = next(path.name for path in ground.workspaces.glob("ses_*"))
    shutil.rmtree(ground.workspaces / key)
    shown, second = await ground.run(READ)
    assert (shown["status"], began(second)["executorId"], texts(second)) == ("success", other, ["turns: 2", "kumquat"])


async def test_work_that_no_snapshot_holds_is_told_from_its_first_event(ground: Ground) -> None:
    """The second run dies with its executor. The third goes on from what the first one left, and says what is missing."""
    _, first = await ground.run(WRITE)
    home = began(first)["executorId"]
    steps = [{"write": {"path": "notes/a.txt", "text": "half"}}, {"say": "in the middle"}, {"hang": True}]
    cut = await ground.replica.start(prompt=script(*steps), sessionId="s")
    await ground.said(cut, "in the middle")
    await ground.executors[home].killed()
    shown, second = await ground.over(cut)
    assert (shown["status"], shown["errorCode"]) == ("error", "executor_lost")
    ground.another_disk()
    shown, third = await ground.run(READ)
    assert (shown["status"], texts(third)) == ("success", ["turns: 2", "kumquat"])
    work = next(event["cursor"] for event in second if event["kind"] == "message.completed")
    assert began(third)["restored"]["runId"] == first[0]["runId"]
    assert began(third)["lostFrom"] == {"runId": cut, "cursor": work}


async def test_a_session_that_nobody_kept_ends_with_the_reason(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ground_at(tmp_path, database, monkeypatch, store=False) as ground:
        _, first = await ground.run(WRITE)
        await ground.executors[began(first)["executorId"]].killed()
        ground.another_disk()
        shown, second = await ground.run(READ)
        assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "workspace_error", True)
        assert "no snapshot" in shown["errorMessage"]
        assert {event["kind"] for event in second} == {"run.status"}, "no engine was started in an empty folder"


async def test_executors_that_share_a_disk_need_no_snapshot(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ground_at(tmp_path, database, monkeypatch, store=False) as ground:
        _, first = await ground.run(WRITE)
        home = began(first)["executorId"]
        assert (await ground.manager.http.post(f"/api/executors/{home}/drain")).status_code == 200
        shown, second = await ground.run(READ)
        assert (shown["status"], texts(second)) == ("success", ["turns: 2", "kumquat"])
        assert began(second)["executorId"] != home
        assert "restored" not in began(second)


async def test_a_run_that_may_begin_again_does_so_from_what_was_before_it(ground: Ground) -> None:
    """Its executor dies after it did something, and it allows that this is done twice."""
    _, first = await ground.run(WRITE)
    home = began(first)["executorId"]
    steps = [
        {"read": "notes/a.txt"},
        {"tool": {"name": "push"}},
        {"write": {"path": "notes/a.txt", "text": "half"}},
        {"hang": True},
    ]
    retried = {"maxAttempts": 2, "afterSideEffects": True}
    cut = await ground.replica.start(prompt=script(*steps), sessionId="s", retry=retried)
    await ground.said(cut, "kumquat")
    await ground.executors[home].killed()
    ground.another_disk()
    async with asyncio.timeout(BOUND):
        while [event["kind"] for event in await ground.replica.events(cut)].count("tool.started") < 2:
            await asyncio.sleep(0.05)  # polling a condition with a bound
    await ground.replica.stop(cut)
    _, events = await ground.over(cut)
    assert texts(events) == ["turns: 2", "kumquat", "turns: 2", "kumquat"], "as it was before the run, not half of it"
    assert began(events)["restored"]["runId"] == first[0]["runId"]
    assert began(events)["lostFrom"]["runId"] == cut


async def test_an_answer_finds_the_files_of_its_run_on_another_executor(ground: Ground) -> None:
    """The run rests, its executor stopped in order and never comes back; the reply starts the next attempt elsewhere."""
    steps = [{"write": {"path": "a.txt", "text": "before"}}, {"ask": {"prompt": "which?"}}]
    run_id = await ground.replica.start(prompt=script(*steps), sessionId="s")
    question = (await ground.replica.until(run_id, "waiting_user", within=BOUND))["pendingQuestions"][0]["questionId"]
    home = began(await ground.replica.events(run_id))["executorId"]
    await ground.executors[home].end()
    await ground.replica.phase(run_id, "parked", within=BOUND)
    ground.another_disk()
    answer = script({"read": "a.txt"})
    assert (await ground.replica.reply(run_id, question, answer=answer)).status_code == 200
    shown, events = await ground.over(run_id)
    assert (shown["status"], texts(events)) == ("success", ["turns: 2", "before"])
    assert began(events)["restored"]["runId"] == run_id
