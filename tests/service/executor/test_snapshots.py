"""What an attempt leaves is in the store when it ends, and another executor goes on from it, at the same path."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.scripted import ScriptedAdapter
from executor.snapshots import snapshots
from executor.snapshots.archive import ArchiveError
from executor.snapshots.blobs import FolderBlobs
from executor.workspaces.workspace import Workspace
from tests.service.executor.kit import Inside, executor_inside, until

KEY = "ses_1"
GO_ON = "go on"


def script(*steps: dict[str, Any]) -> str:
    return json.dumps({"script": list(steps)})


WRITE = script({"write": {"path": "notes/a.txt", "text": "kumquat"}}, {"say": "written"})
READ = script({"read": "notes/a.txt"})


@dataclass
class Ground:
    """Executors that come one after the other at the same paths, each with a disk of its own, and the store they share."""

    folder: Path
    lives: int = 0
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def workspaces(self) -> Path:
        return self.folder / "workspaces"

    def blobs(self) -> list[Path]:
        return [path for path in self.store.glob("*/*") if path.is_file()]

    @asynccontextmanager
    async def executor(self, **settings: Any) -> AsyncGenerator[Inside]:
        """Another machine: nothing of the one before is on its disk."""
        shutil.rmtree(self.workspaces, ignore_errors=True)
        self.lives += 1
        given = {"workspace_root": self.workspaces, "snapshot_store": f"file://{self.store}", **self.settings, **settings}
        state = self.folder / f"state-{self.lives}"
        async with executor_inside(state, ScriptedAdapter(), executor_id=f"exec-{self.lives}", **given) as here:
            yield here


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def run(here: Inside, prompt: str, run_id: str = "run_1", attempt: int = 1, **more: Any) -> list[dict[str, Any]]:
    await here.begin(prompt, run_id, attempt, workspace={"key": KEY}, **more)
    return await here.events(run_id)


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["kind"] == kind]


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [data["text"] for data in of_kind(events, "message.completed")]


def named(events: list[dict[str, Any]], prompt: str = READ, **more: Any) -> dict[str, Any]:
    """What a control plane says of the attempt that ended so, when the next one of its session starts."""
    [taken] = of_kind(events, "snapshot")
    run_id, attempt = events[0]["runId"], events[0]["attempt"]
    ref = {name: taken[name] for name in ("sha256", "bytes", "path")}
    ref |= {"executorId": events[0]["data"]["executorId"], "runId": run_id, "attempt": attempt, "cursor": 9}
    going_on = {"snapshot": ref, "resumeSessionId": taken["engineSession"], "messages": [{"content": prompt}]}
    return {"after": [{"runId": run_id, "attempt": attempt}], "otherwise": going_on} | more


async def test_what_a_run_left_is_there_for_the_next_executor_and_its_session_goes_on(ground: Ground) -> None:
    async with ground.executor() as here:
        first = await run(here, WRITE)
    assert [event["kind"] for event in first][-2:] == ["snapshot", "attempt.ended"], "the last word says that all is kept"
    assert [blob.name for blob in ground.blobs()] == [of_kind(first, "snapshot")[0]["sha256"]]
    async with ground.executor() as here:
        second = await run(here, "not heard", "run_2", **named(first))
    assert texts(second) == ["turns: 2", "kumquat"]
    [started] = of_kind(second, "attempt.started")
    assert started["resumed"] is True
    assert started["restored"] == {"executorId": "exec-1", "runId": "run_1", "attempt": 1, "cursor": 9}


async def test_files_that_are_here_are_taken_and_no_snapshot_is_laid_over_them(ground: Ground) -> None:
    async with ground.executor() as here:
        first = await run(here, WRITE)
        (ground.workspaces / KEY / "work/notes/a.txt").write_text("by hand")
        session = of_kind(first, "session.started")[0]["engineSession"]
        second = await run(here, READ, "run_2", resumeSessionId=session, **named(first, "not heard"))
        assert texts(second) == ["turns: 2", "by hand"]
        assert "restored" not in of_kind(second, "attempt.started")[0]


async def test_older_files_of_the_session_are_never_taken_for_its_newest(ground: Ground) -> None:
    """The session came here, went elsewhere, and comes back: what it left here first is out of date."""
    async with ground.executor() as here:
        first = await run(here, WRITE)
        stale = ground.folder / "stale"
        shutil.copytree(ground.workspaces, stale)
        second = await run(here, script({"write": {"path": "notes/a.txt", "text": "newer"}}), "run_2", **named(first))
    async with ground.executor() as here:
        shutil.rmtree(ground.workspaces)
        shutil.move(stale, ground.workspaces)
        (ground.workspaces / KEY / "work/extra.txt").write_text("only here")
        third = await run(here, "not heard", "run_3", **named(second, script({"read": "notes/a.txt"}, {"read": "extra.txt"})))
    assert texts(third)[:2] == ["turns: 2", "newer"]
    assert "only here" not in texts(third)


async def test_what_a_killed_executor_was_about_to_lay_goes_with_its_next_start_and_no_other(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", executor_id="exec_1") as here:
        mine = here.app.runs._snapshots._laying
    other = mine.with_name("of-another-executor")
    for folder in (mine, other):
        (folder / "token" / "laid").mkdir(parents=True)
        (folder / "token" / "archive").write_text("half")
    async with executor_inside(tmp_path / "state", executor_id="exec_1"):
        assert not mine.exists()
        assert (other / "token" / "archive").exists()


async def test_files_that_were_half_replaced_are_nobodys(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(workspace: Workspace, *_: Any) -> None:
        shutil.rmtree(workspace.work)
        workspace.work.mkdir()
        raise ArchiveError("in the middle of it")

    async with ground.executor() as here:
        first = await run(here, WRITE)
        with monkeypatch.context() as patched:
            patched.setattr(snapshots, "exchange", broken_off)
            second = await run(here, "not heard", "run_2", **named(first, after=[{"runId": "run_9", "attempt": 1}]))
        assert second[-1]["data"]["errorMessage"] == "the workspace could not be made: in the middle of it"
        after = [{"runId": "run_1", "attempt": 1}]
        again = await here.start(READ, "run_3", workspace={"key": KEY}, resumeSessionId="s", after=after)
        assert (again.status_code, again.json()["code"]) == (502, "workspace_error"), "they were of run_1, and are no more"


@pytest.mark.parametrize("harm", ["missing", "changed", "cut"])
async def test_a_snapshot_that_is_not_what_was_put_there_ends_the_attempt(ground: Ground, harm: str) -> None:
    async with ground.executor() as here:
        first = await run(here, WRITE)
    [blob] = ground.blobs()
    content = blob.read_bytes()
    blob.unlink()
    if harm != "missing":
        blob.write_bytes(content[:-1] if harm == "cut" else content[:50] + b"x" + content[51:])
    async with ground.executor() as here:
        second = await run(here, "not heard", "run_2", **named(first))
        ended = second[-1]["data"]
        assert (ended["outcome"], ended["errorCode"]) == ("error", "workspace_error")
        assert ("hash differs" if harm != "missing" else "not in the store") in ended["errorMessage"]
        assert not of_kind(second, "session.started"), "no engine was started"
        again = await here.start("x", "run_3", workspace={"key": KEY}, resumeSessionId="s",
                                 after=[{"runId": "run_2", "attempt": 1}])  # fmt: skip
        assert (again.status_code, again.json()["code"]) == (502, "workspace_error"), "nor is half of it taken for the whole"


async def test_a_session_whose_files_are_nowhere_to_be_had_is_refused(ground: Ground) -> None:
    async with ground.executor(snapshot_store=None) as here:
        first = await run(here, WRITE)
        assert not of_kind(first, "snapshot")
    after = [{"runId": "run_1", "attempt": 1}]
    async with ground.executor() as here:
        refused = await here.start(READ, "run_2", workspace={"key": KEY}, after=after, resumeSessionId="s1")
        assert (refused.status_code, refused.json()["code"]) == (502, "workspace_error")
        assert "no snapshot" in refused.json()["detail"]
        afresh = await run(here, script({"write": {"path": "b", "text": "x"}}), "run_3", after=after)
        assert afresh[-1]["data"]["outcome"] == "success", "one that resumes nothing starts afresh"


async def test_a_snapshot_of_another_path_is_refused_with_the_setting_that_is_wrong(ground: Ground) -> None:
    async with ground.executor() as here:
        first = await run(here, WRITE)
    async with ground.executor(workspace_root=ground.folder / "elsewhere") as here:
        refused = await here.start("x", "run_2", workspace={"key": KEY}, **named(first))
    assert (refused.status_code, refused.json()["code"]) == (502, "workspace_error")
    assert "EXECUTOR_WORKSPACE_ROOT" in refused.json()["detail"]


async def test_a_workspace_that_is_too_large_has_no_snapshot_and_its_run_says_so(ground: Ground) -> None:
    async with ground.executor(snapshot_max_bytes=1000) as here:
        events = await run(here, script({"write": {"path": "big", "text": "x" * 2000}}))
    [told] = [data for data in of_kind(events, "diagnostic") if data["code"] == "snapshot_not_taken"]
    assert "1000 bytes" in told["message"]
    assert events[-1]["data"]["outcome"] == "success"
    assert not ground.blobs()


async def test_a_store_that_cannot_be_written_costs_the_snapshot_and_nothing_else(ground: Ground) -> None:
    ground.store.write_text("a file stands in its place")
    async with ground.executor() as here:
        events = await run(here, WRITE)
    assert [data["code"] for data in of_kind(events, "diagnostic")] == ["snapshot_not_taken"]
    assert events[-1]["data"]["outcome"] == "success"


async def test_the_store_keeps_the_newest_and_the_one_that_is_named(ground: Ground) -> None:
    async with ground.executor() as here:
        last = await run(here, WRITE)
        kept = [named(last)["otherwise"]["snapshot"]["sha256"]]
        for number in range(2, 5):
            step = script({"write": {"path": "n", "text": str(number)}})
            last = await run(here, step, f"run_{number}", **named(last))
            kept.append(of_kind(last, "snapshot")[0]["sha256"])
    assert sorted(blob.name for blob in ground.blobs()) == sorted(kept[-2:])


async def test_a_stopped_executor_leaves_snapshots_of_what_it_had_to_end(ground: Ground) -> None:
    async with ground.executor() as here:
        prompt = script({"write": {"path": "a", "text": "half"}}, {"say": "up"}, {"hang": True})
        await here.begin(prompt, workspace={"key": KEY})
        await here.events(until="message.completed")
        following = asyncio.create_task(here.events())
        here.app.asked_to_end(signal.SIGINT)
        events = await following
    assert events[-1]["data"]["errorCode"] == "executor_lost"
    async with ground.executor() as here:
        second = await run(here, "not heard", "run_1", 2, **named(events, script({"read": "a"})))
    assert texts(second) == ["turns: 2", "half"]


async def test_an_attempt_that_never_ran_takes_no_snapshot(ground: Ground) -> None:
    async with ground.executor() as here:
        await here.http.post("/provider-runs/run_1/stop")
        refused = await here.start(WRITE, workspace={"key": KEY})
        assert refused.status_code == 409
    assert not ground.blobs()


async def test_who_ends_last_but_began_first_leaves_the_snapshot_of_who_came_between(ground: Ground) -> None:
    """It was given up meanwhile, and knows nothing of what its session became elsewhere."""
    ask = script({"write": {"path": "n", "text": "late"}}, {"ask": {"prompt": "?", "options": ["yes"]}})
    async with ground.executor() as first:
        begun = await run(first, WRITE)
        await first.begin(ask, "run_2", 1, workspace={"key": KEY}, **named(begun))
        asked = await first.events("run_2", until="interaction.requested")
        elsewhere = {"workspace_root": ground.folder / "elsewhere", "snapshot_store": f"file://{ground.store}"}
        async with executor_inside(ground.folder / "state-other", ScriptedAdapter(), executor_id="other", **elsewhere) as second:
            between = await run(second, script({"write": {"path": "n", "text": "newest"}}), "run_3")
        reply = {"questionId": asked[-1]["data"]["questionId"], "answer": "yes"}
        assert (await first.http.post("/provider-runs/run_2/human-loop/reply", json=reply)).status_code == 200
        late = await first.events("run_2")
    kept = {blob.name for blob in ground.blobs()}
    assert kept >= {of_kind(events, "snapshot")[0]["sha256"] for events in (between, late)}


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A store that answers nobody; set once somebody asked."""
    asked, answers = threading.Event(), threading.Event()

    def never(*_given: object) -> None:
        asked.set()
        answers.wait(60)

    for call in ("put", "fetch", "group", "forget"):
        monkeypatch.setattr(FolderBlobs, call, never)
    yield asked
    answers.set()


@pytest.mark.usefixtures("stuck")
async def test_a_store_that_never_answers_costs_a_finished_attempt_its_snapshot_and_a_bounded_time(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "TAKE_SECONDS", 0.5)
    async with ground.executor() as here:
        events = await run(here, WRITE)
    assert [data["code"] for data in of_kind(events, "diagnostic")] == ["snapshot_not_taken"]
    assert "the snapshot store does not answer" in of_kind(events, "diagnostic")[0]["message"]
    assert events[-1]["data"]["outcome"] == "success"


async def test_an_attempt_that_succeeded_is_told_so_though_its_executor_stops_while_the_store_hangs(
    ground: Ground, stuck: threading.Event
) -> None:
    async with ground.executor() as here:
        await here.begin(WRITE, workspace={"key": KEY})
        following = asyncio.create_task(here.events())
        await until(stuck.is_set)
        here.app.asked_to_end(signal.SIGINT)
        events = await following
    assert events[-1]["data"]["outcome"] == "success"


async def test_a_start_whose_files_a_store_never_gives_ends_in_time_and_one_that_needs_none_begins(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    async with ground.executor() as here:
        first = await run(here, WRITE)
    request.getfixturevalue("stuck")
    for bound in ("LAY_SECONDS", "LIST_SECONDS", "TAKE_SECONDS", "FORGET_SECONDS"):
        monkeypatch.setattr(snapshots, bound, 0.3)
    async with ground.executor() as here:
        said: list[str] = []
        for number in range(2, 14):
            events = await run(here, "not heard", f"run_{number}", **named(first))
            assert events[-1]["data"]["errorCode"] == "workspace_error"
            said.append(events[-1]["data"]["errorMessage"])
        assert "the snapshot store does not answer" in said[0]
        assert "the snapshot store was not asked: 8 other calls of it were not over in time" in said[-1]
        await here.begin(script({"say": "here"}), "run_0")
        assert texts(await here.events("run_0")) == ["here"]
