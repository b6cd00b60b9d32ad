"""An engine inside bubblewrap, for real: what it sees, what it can write, and that it ends as every other.

The program is the one that comes with a pinned engine, so that no test depends on what a machine has installed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor.app import build_app
from executor.processes import procfs
from executor.processes.containment import containment
from executor.settings import ExecutorSettings
from tests.cgroup_trees import below, mounted, real_cgroup
from tests.service.executor.kit import Inside, executor_inside, until

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
CAP_SETFCAP = 1 << 31  # what codex needs of root for the sandbox it makes within this one


@pytest.fixture(scope="module")
def bwrap() -> Path:
    return next((ROOT / "engines" / "node_modules" / "@openai").glob("codex-linux-*/vendor/*/codex-resources/bwrap"))


@pytest.fixture
async def executor(tmp_path: Path, bwrap: Path) -> AsyncIterator[Inside]:
    settings: dict[str, Any] = {"containment": "required", "bwrap": bwrap, "private_paths": [tmp_path / "private"]}
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_text("the stack's own key")
    async with executor_inside(tmp_path / "state", **settings) as inside:
        yield inside


async def said(executor: Inside, script: str, run_id: str = "run_1", **more: Any) -> list[str]:
    await executor.begin(f"{script}\necho done", run_id, **more)
    events = await executor.events(run_id)
    return [each["data"]["text"] for each in events if each["kind"] == "message.completed"]


async def test_what_holds_is_said_in_the_first_event(executor: Inside) -> None:
    await executor.begin("echo done")
    started = (await executor.events())[0]
    assert started["data"]["sandbox"].startswith("bubblewrap+session")


async def test_an_engine_writes_to_its_workspace_and_temporary_folder_and_nowhere_else(executor: Inside, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    script = f"""
    for place in "$PWD" "$HOME" "$TMPDIR" /tmp /etc {outside} {ROOT}; do
      if touch "$place/mine" 2>/dev/null; then echo say wrote $place; fi
    done"""
    workspace = tmp_path / "state" / "workspaces" / "run_1"
    mine = [f"wrote {workspace / name}" for name in ("work", "home", "tmp")]
    assert await said(executor, script) == [*mine, "wrote /tmp"]
    assert (workspace / "tmp" / "mine").exists()
    assert not (outside / "mine").exists()


async def test_an_engine_sees_no_other_run_no_journal_and_no_private_path(executor: Inside, tmp_path: Path) -> None:
    await said(executor, "echo theirs > theirs.txt", "run_other")
    state, workspaces = tmp_path / "state", tmp_path / "state" / "workspaces"
    script = f"echo say $(ls {workspaces}); echo say $(ls {state}); echo say [$(cat {tmp_path}/private/secret 2>/dev/null)]"
    assert await said(executor, script) == ["run_1", "workspaces", "[]"]


async def test_an_engine_has_no_capability_with_which_to_open_its_view(executor: Inside, tmp_path: Path) -> None:
    """As root too: bubblewrap leaves root what it has, unless it is told not to."""
    private, outside = tmp_path / "private", tmp_path / "outside"
    outside.mkdir()
    take = f"umount {private}; mount -o remount,rw,bind /; touch {outside}/mine; cat {private}/secret"
    script = f"""
    echo say $(grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status)
    echo say [$(exec 2>/dev/null; {take})] [$(unshare -Urm sh -c '{take}' 2>/dev/null)]"""
    left = CAP_SETFCAP if os.geteuid() == 0 else 0
    held = " ".join(f"Cap{sort}: {left:016x}" for sort in ("Inh", "Prm", "Eff", "Amb"))
    assert await said(executor, script) == [f"{held} NoNewPrivs: 1", "[] []"]
    assert not (outside / "mine").exists()


async def test_what_is_made_after_the_start_is_hidden_too(tmp_path: Path, bwrap: Path) -> None:
    store, credentials, later = tmp_path / "far" / "store", tmp_path / "far" / "credentials", tmp_path / "later"
    settings: dict[str, Any] = {"snapshot_store": f"file://{store}", "credentials_dir": credentials, "private_paths": [later]}
    look = f"for place in {store} {credentials} {later}; do echo say [$(cat $place/secret 2>/dev/null)]; done"
    async with executor_inside(tmp_path / "state", containment="required", bwrap=bwrap, **settings) as executor:
        await executor.begin(f"echo say up; while [ ! -e go ]; do sleep 0.02; done; {look}\necho done")
        await executor.said("up")
        for folder in (store, credentials):
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "secret").write_text("the stack's own key")
        later.mkdir()
        (later / "secret").write_text("the operator's own key")
        assert await said(executor, look, "run_2") == ["[]", "[]", "[]"]
        (tmp_path / "state" / "workspaces" / "run_1" / "work" / "go").touch()
        at_work = [each["data"]["text"] for each in await executor.events() if each["kind"] == "message.completed"]
        assert at_work[1:3] == ["[]", "[]"]


async def test_an_engine_leaves_the_next_one_no_way_out(executor: Inside, tmp_path: Path) -> None:
    private, session = tmp_path / "private", {"workspace": {"key": "s"}}
    leave = f"""
    for name in TMPDIR HOME PWD; do
      eval place=\\$$name; mv "$place" "$place.old" 2>/dev/null; rm -rf "$place" 2>/dev/null; ln -s {private} "$place"
    done; echo say [$(cat {private}/secret 2>/dev/null)]"""
    look = 'touch /tmp/mine "$TMPDIR/mine" "$HOME/mine" mine; cat /tmp/secret "$TMPDIR/secret" "$HOME/secret" secret'
    assert await said(executor, leave, "run_1", **session) == ["[]"]
    assert await said(executor, f"echo say [$(exec 2>/dev/null; {look})]", "run_2", **session) == ["[]"]
    assert [path.name for path in private.iterdir()] == ["secret"]


async def test_an_engine_cannot_move_its_temporary_folder_under_another_that_begins(executor: Inside, tmp_path: Path) -> None:
    tries = 'for how in "mv $TMPDIR $TMPDIR.old" "rm -rf $TMPDIR" "rmdir $TMPDIR"; do $how 2>/dev/null; done'
    assert await said(executor, f'{tries}; ln -s / "$TMPDIR" 2>/dev/null; echo say $(stat -c %F "$TMPDIR")') == ["directory"]
    assert not (tmp_path / "state" / "workspaces" / "run_1" / "tmp").is_symlink()


async def test_an_engine_makes_a_sandbox_of_its_own_within_this_one(executor: Inside, bwrap: Path) -> None:
    """As codex does for each command it runs, by the same program."""
    inner = f"{bwrap} --unshare-user --ro-bind / / --bind $PWD $PWD --dev /dev"
    assert await said(executor, f"echo say $({inner} sh -c 'touch mine && echo made' 2>&1)") == ["made"]


async def test_an_engine_sees_no_process_but_its_own(executor: Inside) -> None:
    (mine,) = await said(executor, "echo say $(ls -d /proc/[0-9]* | wc -l)")
    assert int(mine) < 8 < len(procfs.snapshot())


@pytest.mark.skipif(mounted() is None, reason="no cgroup of version 2 can be made here")
async def test_a_contained_engine_stands_in_its_runs_cgroup_and_cannot_leave_it(tmp_path: Path, bwrap: Path) -> None:
    with real_cgroup() as root:
        async with executor_inside(tmp_path / "state", containment="required", bwrap=bwrap, cgroup=root) as executor:
            leave = f"sh -c 'echo 0 > {root}/cgroup.procs' 2>/dev/null && echo say left"
            (place,) = await said(executor, f"{leave}; echo say $(grep ^0:: /proc/self/cgroup)")
            assert (await executor.events())[0]["data"]["sandbox"].startswith("bubblewrap+")
        assert place.startswith(f"0::/{root.name}/runyard-")
        assert below(root) == []


async def test_a_child_that_left_session_and_parents_is_gone_after_the_stop(executor: Inside) -> None:
    await executor.begin("(setsid sh -c 'env -i sleep 301' &) ; sleep 0.1; echo say up; sleep 300")
    await executor.said("up")
    root = (await executor.show())["pid"]
    below = procfs.descendants(procfs.snapshot(), {root})
    assert len(below) >= 3
    await executor.stop()
    await executor.ended()
    left = procfs.snapshot()
    assert not [pid for pid in {root, *below} if pid in left and left[pid].is_alive]


async def test_an_engine_has_its_grace_to_end_by_itself(executor: Inside) -> None:
    await executor.begin("trap 'echo say goodbye; echo done; exit 0' TERM; echo say up; while :; do sleep 0.05; done")
    await executor.said("up")
    await executor.stop()
    texts = [each["data"].get("text") for each in await executor.events()]
    assert "goodbye" in texts


@pytest.mark.parametrize(("script", "exit_code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -SEGV $$", -11)])
async def test_the_exit_is_the_engines_own(executor: Inside, script: str, exit_code: int) -> None:
    await executor.begin(script)
    assert (await executor.ended())["exitCode"] == exit_code


async def test_killing_the_wrapper_leaves_nothing(executor: Inside) -> None:
    await executor.begin("echo say up; sleep 302")
    await executor.said("up")
    root = (await executor.show())["pid"]
    below = procfs.descendants(procfs.snapshot(), {root})
    procfs.send(procfs.snapshot()[root], signal.SIGKILL)
    await executor.ended()
    await until(lambda: not [pid for pid in below if (each := procfs.read_process(pid)) and each.is_alive])


def test_what_is_required_and_does_not_work_refuses_to_serve(tmp_path: Path) -> None:
    settings = {"state_dir": tmp_path, "auth": "off", "containment": "required"}
    with pytest.raises(ValueError, match="EXECUTOR_CONTAINMENT=required: /bin/false"):
        build_app(ExecutorSettings.model_validate({**settings, "bwrap": "/bin/false"}))


def test_what_is_wanted_and_does_not_work_is_done_without(bwrap: Path) -> None:
    assert containment("auto", Path("/bin/false"), (), ()).name is None
    assert containment("auto", Path("/no/such/program"), (), ()).name is None
    assert containment("none", bwrap, (), ()).name is None
    assert containment("auto", bwrap, (), ()).name == "bubblewrap"
