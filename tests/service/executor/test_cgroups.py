"""An executor whose runs have cgroups: nothing leaves its tree, and an engine without memory says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.processes.cgroups import Cgroups
from executor.state_dir import StateDir
from tests.cgroup_trees import below, looks_like_one, mounted, real_cgroup
from tests.service.executor.kit import executor_inside, is_running

BOUND = 128 * 1024 * 1024


@pytest.fixture
def root() -> Iterator[Path]:
    if mounted() is None:
        pytest.skip("no cgroup of version 2 can be made here")
    with real_cgroup() as path:
        yield path


async def test_what_shed_its_mark_its_session_and_its_parents_is_gone_with_its_run(tmp_path: Path, root: Path) -> None:
    """This process adopts no orphans, so that nothing but the cgroup leads to it."""
    async with executor_inside(tmp_path / "state", cgroup=root) as executor:
        await executor.begin("(setsid env -i /bin/sh -c 'sleep 300 & echo say left $!' &) ; exec sleep 300")
        started = (await executor.events(until="attempt.started"))[0]
        assert "cgroup" in started["data"]["sandbox"].split("+")
        left = int(await executor.said("left"))
        assert is_running(left)
        await executor.stop()
        assert (await executor.ended())["outcome"] == "canceled"
        assert not is_running(left)
    assert below(root) == []


async def test_an_engine_that_the_kernel_ended_for_its_memory_is_told_as_such(tmp_path: Path) -> None:
    root, state = looks_like_one(tmp_path / "cg"), StateDir.at(tmp_path / "state")
    cgroup = Cgroups(root, mark=state.mark).of("run_1.1")
    assert cgroup is not None
    async with executor_inside(state.root, cgroup=root, memory_limit_bytes=BOUND) as executor:
        await executor.begin(f"echo 'oom_kill 1' > {cgroup.path}/memory.events; kill -9 $$")
        events = await executor.events()
    assert events[0]["data"]["sandbox"].split("+")[-2:] == ["cgroup", "memory-limit"]
    ended = events[-1]["data"]
    assert (ended["outcome"], ended["errorCode"]) == ("error", "engine_oom")
    assert f"{BOUND} bytes of memory (memory.events: oom_kill 1)" in ended["errorMessage"]


async def test_a_bound_that_nobody_can_keep_is_told_by_every_run_and_changes_nothing_else(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", cgroup=tmp_path / "none", memory_limit_bytes=BOUND) as executor:
        await executor.begin("echo done")
        events = await executor.events()
    assert events[0]["data"]["sandbox"].endswith("+no-memory-limit")
    assert events[-1]["data"]["outcome"] == "success"
