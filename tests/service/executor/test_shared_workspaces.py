"""Several executors that share one workspace root."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from executor.shared_workspaces import SharedWorkspaces
from tests.service.executor.kit import ROOT, executor_inside

HOLD = """
import pathlib, sys
from executor.shared_workspaces import SharedWorkspaces
shared = SharedWorkspaces(pathlib.Path(sys.argv[1]))
print(shared.take("ws"), flush=True)
sys.stdin.read()
"""
HERE: dict[str, Any] = {"workspace": {"key": "ws"}}


@asynccontextmanager
async def another_executor_in(root: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that works in the workspace until it is killed."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, str(root), cwd=ROOT, stdin=pipe, stdout=pipe)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(20):
            assert await child.stdout.readline() == b"True\n"
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_no_run_begins_where_another_executor_works_until_that_one_is_gone(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", workspace_root=tmp_path) as here, another_executor_in(tmp_path) as other:
        refused = await here.start("echo done", **HERE)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert not (tmp_path / "ws").exists(), "not even its folders were made"
        await here.begin("echo done", "run_2")
        other.kill()
        await other.wait()
        await here.begin("echo done", **HERE)
        assert (await here.ended())["outcome"] == "success"


async def test_an_executor_holds_a_workspace_for_as_long_as_an_attempt_lives_there(tmp_path: Path) -> None:
    """And gives it back with the end of the last one, and at once where none could begin."""
    async with executor_inside(tmp_path / "state", workspace_root=tmp_path) as here:
        await here.begin("echo say up; sleep 300", **HERE)
        assert not await _is_free(tmp_path)
        await here.begin("echo say again; sleep 300", attempt=2, **HERE)
        await here.said("again")
        assert not await _is_free(tmp_path)
        await here.stop()
        await here.ended()
        assert await _is_free(tmp_path)
        assert (await here.start("x", "run_2", env={"HOME": "/"}, **HERE)).status_code == 422
        assert await _is_free(tmp_path)


async def _is_free(root: Path) -> bool:
    """For another process."""
    code = HOLD.replace("sys.stdin.read()", "")
    asked = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(root), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    said, _ = await asked.communicate()
    return said == b"True\n"


def test_where_nothing_can_be_locked_an_executor_works_all_the_same(tmp_path: Path) -> None:
    locks = SharedWorkspaces(tmp_path / "nowhere")
    assert locks.take("ws")
    locks.keep_only(())
