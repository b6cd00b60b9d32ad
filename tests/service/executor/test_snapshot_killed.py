"""An executor that is killed while it takes a snapshot leaves none that counts, and its next life goes on without it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.service.executor.kit import BOUND, executor_outside, until

MIB = 1024 * 1024
PROMPT = json.dumps({"script": [{"write": {"path": "a", "text": "x"}}]})
WHERE = {"packing": "state/snapshots/*", "putting": "store/*/.draft-*"}


def growing(folder: Path, pattern: str) -> bool:
    """Whether a draft is there and holds something."""
    try:
        return any(path.stat().st_size > MIB for path in folder.glob(pattern))
    except FileNotFoundError:
        return False


def named(store: Path) -> list[Path]:
    """The blobs that count."""
    return [path for path in store.glob("*/*") if not path.name.startswith(".")]


@pytest.mark.parametrize("pattern", WHERE.values(), ids=WHERE)
async def test_a_killed_executor_leaves_no_half_snapshot(tmp_path: Path, pattern: str) -> None:
    store, drafts = tmp_path / "store", tmp_path / "state/snapshots"
    given = {"EXECUTOR_SNAPSHOT_STORE": f"file://{store}", "EXECUTOR_WORKSPACE_ROOT": str(tmp_path / "workspaces")}
    work = tmp_path / "workspaces/run_1/work"
    work.mkdir(parents=True)
    block = os.urandom(8 * MIB)  # nothing that could be squeezed into little
    with (work / "large").open("wb") as large:
        large.writelines(block for _ in range(3))
    async with executor_outside(tmp_path / "state", is_ready=True, wrapper=(), **given) as here:
        await here.begin(PROMPT)
        await until(lambda: growing(tmp_path, pattern) or named(store), BOUND)
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: here.guard.poll() is not None)
    blobs = named(store)
    assert [hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs] == [blob.name for blob in blobs], (
        "whole, or not there"
    )
    async with executor_outside(tmp_path / "state", is_ready=True, wrapper=(), **given) as here:
        assert not list(drafts.iterdir()), "what was begun is gone"
        events = await here.events()
        told = any(event["kind"] == "snapshot" for event in events)
        assert events[-1]["data"]["outcome"] == "lost" or told
        assert blobs or not told, "none is told of that is not there"
        after = [{"runId": "run_1", "attempt": 1}]
        await here.begin(json.dumps({"script": [{"read": "a"}]}), attempt=2, after=after)
        assert (await here.ended())["result"] == "x", "its own files are the newest there are"
        assert (await here.events())[-2]["kind"] == "snapshot"
