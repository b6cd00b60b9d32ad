"""Workspaces deleted on the control plane's word: of the named runs, when nobody is at work there, and never on an old word."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor import forgetting, heartbeat
from executor.snapshots.blobs import BlobName, FolderBlobs
from tests.deep_folders import a_bomb
from tests.service.executor.kit import Inside, executor_inside, until

SHA = "a" * 64


async def quote(here: Inside, late_ms: int = 0) -> dict[str, Any]:
    body = {"quote": {"instance": "", "clockMs": 0}, "attempts": []}
    read = (await here.http.post("/provider-runs/renew", json=body)).json()
    return {"instance": read["instance"], "clockMs": read["clockMs"] - late_ms}


async def forget(here: Inside, key: str, *run_ids: str, late_ms: int = 0) -> str:
    body = {"quote": await quote(here, late_ms), "runIds": list(run_ids)}
    answer = await here.http.post(f"/workspaces/{key}/forget", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["workspace"] == key
    return answer.json()["status"]


async def ran(here: Inside, script: str, run_id: str = "run_1", key: str = "ws") -> None:
    await here.begin(script, run_id, workspace={"key": key})
    await here.ended(run_id)


def is_empty(root: Path) -> bool:
    """Nothing of a workspace is left, not even put aside."""
    return not any(entry.name not in (".left", ".going", ".laying") for entry in root.iterdir()) and not any(
        (root / name).exists() and any((root / name).iterdir()) for name in (".left", ".going")
    )


async def test_a_workspace_goes_with_all_that_an_engine_left_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    script = f"mkdir -p a/b && echo x >a/b/c && ln -s {outside} link && ln -s nowhere dangling && mkfifo pipe && chmod 0500 a/b a"
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, script)
        root = tmp_path / "state" / "workspaces"
        assert (root / "ws" / "work" / "link").is_symlink()
        assert await forget(here, "ws", "run_1") == "gone"
        assert not (root / "ws").exists()
        await until(lambda: is_empty(root))
        assert await forget(here, "ws", "run_1") == "gone"
        assert "ws" not in (await here.http.get("/executor")).json()["workspaces"]
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


async def test_files_of_another_run_than_the_named_ones_stay(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        await ran(here, "echo two >two", "run_2")
        assert await forget(here, "ws", "run_1") == "kept"
        assert (tmp_path / "state" / "workspaces" / "ws" / "work" / "two").exists()
        assert await forget(here, "ws", "run_1", "run_2") == "gone"


async def test_a_workspace_in_which_an_attempt_lives_stays(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        await here.begin("sleep 60", "run_2", workspace={"key": "ws"})
        await here.events("run_2", until="attempt.started")
        assert await forget(here, "ws", "run_1", "run_2") == "in_use"
        assert (tmp_path / "state" / "workspaces" / "ws" / "work" / "one").exists()
        await here.stop("run_2")
        await here.ended("run_2")
        assert await forget(here, "ws", "run_1", "run_2") == "gone"


@pytest.mark.parametrize("wrong", [{"clockMs": 20_000}, {"instance": "of_another_life"}])
async def test_a_word_that_was_long_on_its_way_counts_for_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        now = await quote(here)
        old = {**now, **wrong} if "instance" in wrong else {**now, "clockMs": now["clockMs"] - wrong["clockMs"]}
        answer = await here.http.post("/workspaces/ws/forget", json={"quote": old, "runIds": ["run_1"]})
        assert answer.status_code == 409, answer.text
        assert (tmp_path / "state" / "workspaces" / "ws" / "work" / "one").exists()


@pytest.mark.parametrize("key", [".left", ".going", "..", "%2e%2e"])
async def test_no_key_names_anything_but_a_workspace(tmp_path: Path, key: str) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        body = {"quote": await quote(here), "runIds": ["run_1"]}
        assert (await here.http.post(f"/workspaces/{key}/forget", json=body)).status_code in (404, 422)
        assert (tmp_path / "state" / "workspaces" / ".left" / "ws").exists()


async def test_a_session_that_begins_again_after_it_finds_an_empty_workspace(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        assert await forget(here, "ws", "run_1") == "gone"
        await ran(here, "ls -A >listed", "run_2")
        listed = (tmp_path / "state" / "workspaces" / "ws" / "work" / "listed").read_text().split()
        assert "one" not in listed
        assert await forget(here, "ws", "run_1") == "kept"  # told again: what stands there now is another run's


async def test_what_an_earlier_life_put_aside_is_deleted_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "state" / "workspaces"
    (root / ".going" / "0123" / "work").mkdir(parents=True)
    (root / ".going" / "0123" / "work" / "file").write_text("x")
    async with executor_inside(tmp_path / "state"):
        await until(lambda: not any((root / ".going").iterdir()))


async def test_no_depth_of_folders_keeps_a_workspace(tmp_path: Path) -> None:
    root = tmp_path / "state" / "workspaces"
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo one >one")
        a_bomb(root / "ws" / "work" / "deep")
        assert (await here.http.get("/provider-runs/run_1/files")).status_code == 200
        assert await forget(here, "ws", "run_1") == "gone"
        await until(lambda: is_empty(root))


async def test_a_tree_that_cannot_be_deleted_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = tmp_path / "state" / "workspaces" / ".going"
    for number in range(8):
        (aside / f"{number}").mkdir(parents=True)
    real = forgetting.remove_tree

    def refuses(path: Path, goes_on: Callable[[], bool]) -> None:
        if path.name == "3":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, goes_on)

    monkeypatch.setattr(forgetting, "remove_tree", refuses)
    async with executor_inside(tmp_path / "state"):
        await until(lambda: [each.name for each in aside.iterdir()] == ["3"])


def kept_blob(store: Path, group: str, *, old: bool) -> Path:
    place = store / group / SHA
    place.parent.mkdir(parents=True)
    place.write_bytes(b"snapshot")
    if old:
        os.utime(place, (0, 0))
    return place


async def test_snapshots_go_with_their_workspace_and_no_others_do(tmp_path: Path) -> None:
    store = tmp_path / "store"
    mine, other = kept_blob(store, "ws", old=True), kept_blob(store, "other", old=True)
    async with executor_inside(tmp_path / "state", snapshot_store=f"file://{store}") as here:
        assert await forget(here, "ws", "run_1") == "gone"  # its files were at another executor
    assert not mine.parent.exists()
    assert other.exists()


async def test_a_snapshot_of_a_session_that_began_again_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    store = tmp_path / "store"
    young = kept_blob(store, "ws", old=False)
    async with executor_inside(tmp_path / "state", snapshot_store=f"file://{store}") as here:
        assert await forget(here, "ws", "run_1") == "in_use"
    assert young.exists()


def test_forgetting_a_group_that_is_not_there_is_done(tmp_path: Path) -> None:
    assert FolderBlobs(tmp_path / "store").forget(BlobName("ws", SHA).group, 0)


async def test_what_breaks_a_loop_of_the_executor_ends_it_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete = forgetting.Forgetting._delete
    failures = ["can't start new thread"]

    def refused(self: forgetting.Forgetting) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        delete(self)

    monkeypatch.setattr(forgetting.Forgetting, "_delete", refused)
    monkeypatch.setattr(heartbeat, "AGAIN_SECONDS", 0.01)
    async with executor_inside(tmp_path / "state") as here:
        await ran(here, "echo done")
        assert await forget(here, "ws", "run_1") == "gone"
        await until(lambda: is_empty(tmp_path / "state" / "workspaces"))
    assert not failures
    assert "task.failed" in "".join(capsys.readouterr())
