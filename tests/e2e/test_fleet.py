"""A fleet as an operator sees it: three real executors behind one name, a real manager, and what ``/api/executors`` says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executor.state_dir import MARK, StateDir
from shared.sse import CutError, FrameReader
from tests.e2e.kit import gone, processes_with, script
from tests.loopback import unused_port
from tests.service.executor_manager.kit import RUNS, Manager, manager_process

BOUND = 40.0
NAME = "executors.test"
HANG = script({"say": "here"}, {"hang": True})
ASK = script({"ask": {"prompt": "?"}}, {"write": {"path": "a.txt", "text": "x"}})
KEYS = {"RUNYARD_AUTH": "on", "RUNYARD_SERVICE_TOKEN": "t"}


@dataclass
class Executor:
    """A guard and its executor, at an address of its own."""

    name: str
    address: str
    port: int
    state: Path
    slots: int = 2
    guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def begin(self) -> None:
        given = {
            "EXECUTOR_STATE_DIR": str(self.state), "EXECUTOR_HOST": self.address, "EXECUTOR_PORT": str(self.port),
            "EXECUTOR_ID": self.name, "EXECUTOR_SLOTS": str(self.slots), "RUNYARD_SERVICE_TOKEN": "t",
        }  # fmt: skip
        self.guard = subprocess.Popen([sys.executable, "-m", "executor"], env={**os.environ, **given}, stdin=subprocess.DEVNULL)

    async def killed(self) -> None:
        """Executor and guard at once, and with them what they started: as a machine that is gone."""
        assert self.guard is not None
        places = StateDir.at(self.state)
        executor = int(places.pid.read_text())
        for pid in (self.guard.pid, executor):
            os.kill(pid, signal.SIGKILL)
        for pid in processes_with(MARK, places.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self.guard.wait, BOUND)
        await gone(executor)

    async def end(self) -> None:
        if self.guard is not None and self.guard.poll() is None:
            self.guard.send_signal(signal.SIGINT)
            await asyncio.to_thread(self.guard.wait, BOUND)


@dataclass
class Fleet:
    """``here``: the manager in front of them; ``file``: its name server."""

    executors: list[Executor]
    here: Manager
    file: Path

    def name(self, *addresses: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({NAME: addresses, "alias.test": addresses[:1]}))
        fresh.replace(self.file)

    async def seen(self) -> dict[str, dict[str, Any]]:
        """What ``/api/executors`` says, by executor id."""
        return {member["state"]["executorId"]: member for member in await self.here.fleet() if member.get("state")}

    async def until(self, is_so: Callable[[dict[str, dict[str, Any]]], object]) -> dict[str, dict[str, Any]]:
        async with asyncio.timeout(BOUND):
            while not is_so(seen := await self.seen()):
                await asyncio.sleep(0.05)  # polling a condition with a bound
        return seen

    async def start(self, *runs: str, prompt: str = HANG) -> list[str]:
        return [await self.here.start(run, prompt) for run in runs]


async def events(here: Manager, run_id: str, executor_id: str, until: str | None = None) -> list[dict[str, Any]]:
    """An attempt's events, to its end or to the first of a kind. A cut raises."""
    upstream = await here.follow(run_id, executor_id)
    found: list[dict[str, Any]] = []
    reader = FrameReader()
    try:
        async with asyncio.timeout(BOUND):
            while (block := await upstream.next(5.0)) is not None:
                found += [json.loads(frame.data) for frame in reader.feed(block) if frame.id]
                if any(event["kind"] == until for event in found):
                    break
    finally:
        await upstream.close()
    return found


@asynccontextmanager
async def executors_at(folder: Path, *addresses: str) -> AsyncGenerator[list[Executor]]:
    port = unused_port()
    made = [Executor(f"exec-{n}", address, port, folder / f"exec-{n}") for n, address in enumerate(addresses, 1)]
    async with AsyncExitStack() as stack:
        for each in made:
            stack.push_async_callback(each.end)
            each.begin()
        yield made


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    file = tmp_path / "names.json"
    async with executors_at(tmp_path, "127.0.0.2", "127.0.0.3", "127.0.0.4") as made:
        bases = f"http://{NAME}:{made[0].port},http://alias.test:{made[0].port}"
        file.write_text(json.dumps({NAME: [], "alias.test": []}))
        command = (sys.executable, "-m", "tests.e2e.manager_with_names", str(file))
        async with manager_process(bases, unused_port(), command, **KEYS) as here:
            fleet = Fleet(made, here, file)
            fleet.name(*(each.address for each in made))
            await fleet.until(lambda seen: sum(member["reachable"] for member in seen.values()) == 3)
            yield fleet


async def test_three_executors_behind_one_name_share_the_work_and_a_full_fleet_says_so(fleet: Fleet) -> None:
    seen = await fleet.seen()
    assert {name: member["url"] for name, member in seen.items()} == {each.name: each.url for each in fleet.executors}
    assert all(member["alsoAt"] == [] for member in seen.values()), "the alias is the first of them, not a fourth"
    placed = await fleet.start("r1", "r2", "r3")
    assert sorted(placed) == ["exec-1", "exec-2", "exec-3"], "each the least loaded in turn"
    placed += await fleet.start("r4", "r5", "r6")
    assert sorted(placed) == sorted(2 * ["exec-1", "exec-2", "exec-3"])
    seen = await fleet.until(lambda seen: all((each["state"]["live"], each["reserved"]) == (2, 0) for each in seen.values()))
    assert {member["state"]["slots"] for member in seen.values()} == {2}
    full = await fleet.here.propose()
    assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (429, "queue_full", "2")
    assert (await fleet.here.propose("r1")).json()["executorId"] == placed[0], "the holder of the workspace, also when it is full"
    stopped = await fleet.here.http.post(f"{RUNS}/r4/stop")
    assert stopped.status_code == 200
    assert (await events(fleet.here, "r4", placed[3]))[-1]["data"]["outcome"] == "canceled"
    await fleet.until(lambda seen: seen[placed[3]]["state"]["live"] == 1)
    assert (await fleet.here.propose()).json()["executorId"] == placed[3]


async def test_a_lost_executor_is_seen_and_its_return_is_another_life(fleet: Fleet) -> None:
    before = await fleet.seen()
    [holder] = await fleet.start("r1")
    await events(fleet.here, "r1", holder, until="message.completed")
    lost = next(each for each in fleet.executors if each.name == holder)
    await lost.killed()
    seen = await fleet.until(lambda seen: not seen[holder]["reachable"])
    assert seen[holder]["reason"]
    assert seen[holder]["state"]["instance"] == before[holder]["state"]["instance"], "its last word is kept"
    placed = await fleet.start("r2", "r3", "r4", "r5")
    assert holder not in placed
    assert (await fleet.here.propose()).status_code == 429
    unknown = await fleet.here.http.get(f"{RUNS}/nowhere")
    assert (unknown.status_code, unknown.json()["code"]) == (503, "provider_unavailable"), "one was not heard"
    named = await fleet.here.http.get(f"{RUNS}/r1", params={"executor": holder, "attempt": 1})
    assert (named.status_code, named.json()["sent"]) == (503, False)

    lost.begin()
    seen = await fleet.until(lambda seen: seen[holder]["reachable"])
    assert seen[holder]["state"]["instance"] != before[holder]["state"]["instance"]
    told = (await events(fleet.here, "r1", holder))[-1]
    assert (told["kind"], told["data"]["outcome"]) == ("attempt.ended", "lost"), "its new life knows the old one's runs"
    assert (await fleet.here.http.get(f"{RUNS}/nowhere")).status_code == 404, "everyone answered"
    assert await fleet.start("r6") == [holder]


async def test_a_draining_executor_gets_no_run_and_is_reached_for_those_it_has(fleet: Fleet) -> None:
    [holder] = await fleet.start("asking", prompt=ASK)
    asked = (await events(fleet.here, "asking", holder, until="interaction.requested"))[-1]
    answer = await fleet.here.http.post(f"/api/executors/{holder}/drain")
    assert (answer.status_code, answer.json()["draining"], answer.json()["live"]) == (200, True, 1)
    assert (await fleet.seen())[holder]["state"]["draining"], "the manager knows it at once"
    placed = await fleet.start("r1", "r2", "r3", "r4")
    assert holder not in placed
    assert (await fleet.here.propose()).json()["code"] == "queue_full"
    assert (await fleet.here.propose("asking")).status_code == 429, "not even for the workspace it holds"
    providers = (await fleet.here.http.get("/api/providers")).json()["items"]
    scripted = next(each for each in providers if each["provider"] == "scripted")
    assert (scripted["readinessCategory"], holder in scripted["executors"]) == ("ready", False)

    named = {"executor": holder, "attempt": 1}
    reply = {"questionId": asked["data"]["questionId"], "answer": "yes"}
    answered = await fleet.here.http.post(f"{RUNS}/asking/human-loop/reply", params=named, json=reply)
    assert answered.status_code == 200, answered.text
    assert (await events(fleet.here, "asking", holder))[-1]["data"]["outcome"] == "success"
    assert (await fleet.here.http.get(f"{RUNS}/asking/files/a.txt", params=named)).content == b"x"
    assert (await fleet.here.http.post(f"{RUNS}/asking/stop", params=named)).json()["status"] == "ended"
    assert (await fleet.here.http.delete(f"/api/executors/{holder}/drain")).json()["draining"] is False
    assert (await fleet.here.propose()).json()["executorId"] == holder


async def test_an_executor_that_leaves_the_name_is_kept_until_it_is_gone(fleet: Fleet) -> None:
    first, *rest = fleet.executors
    fleet.name(*(each.address for each in rest))
    for _ in range(3):  # an unknown executor makes the manager look around
        answer = await fleet.here.http.get(f"{RUNS}/r1", params={"executor": "nobody"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), "everyone answered"
    seen = await fleet.seen()
    assert (seen["exec-1"]["url"], seen["exec-1"]["reachable"]) == (first.url, True)
    await first.end()
    seen = await fleet.until(lambda seen: "exec-1" not in seen)
    assert sorted(seen) == ["exec-2", "exec-3"]
    first.begin()
    fleet.name(*(each.address for each in fleet.executors))
    await fleet.until(lambda seen: seen.get("exec-1", {}).get("reachable"))


async def test_nobody_notices_that_a_manager_is_killed_and_another_one_stands_in(fleet: Fleet) -> None:
    """Two managers beside each other, each asked for what the other one placed; then one is killed in mid-stream."""
    bases = f"http://{NAME}:{fleet.executors[0].port}"
    command = (sys.executable, "-m", "tests.e2e.manager_with_names", str(fleet.file))
    async with manager_process(bases, unused_port(), command, **KEYS) as second:
        [holder] = await fleet.start("r1", prompt=script({"repeat": {"count": 300, "everyMs": 10, "say": "tick {i}"}}))
        upstream = await fleet.here.follow("r1", holder)
        seen: list[int] = []
        reader = FrameReader()

        async def read(enough: int) -> None:
            async with asyncio.timeout(BOUND):
                while len(seen) < enough and (block := await upstream.next(5.0)) is not None:
                    seen.extend(int(frame.id) for frame in reader.feed(block) if frame.id)

        await read(20)
        fleet.here.process.kill()
        with pytest.raises(CutError):
            await read(10**9)
        rest = [event for event in await events(second, "r1", holder) if event["executorCursor"] > seen[-1]]
        assert [*seen, *(event["executorCursor"] for event in rest)] == list(range(1, rest[-1]["executorCursor"] + 1))
        assert rest[-1]["data"]["outcome"] == "success"


def may_mount() -> bool:
    """Whether this system lets us have a hosts file of our own: a mount namespace inside a user namespace."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-rm", "mount", "--bind", "/etc/hosts", "/etc/hosts"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no mount namespace can be had here")
async def test_a_name_that_the_system_resolves_to_three_addresses_is_three_executors(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    async with executors_at(tmp_path, "127.0.0.2", "127.0.0.3", "127.0.0.4") as made:
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{each.address} {NAME}\n" for each in made))
        inside = f"mount --bind {hosts} /etc/hosts && exec {sys.executable} -m executor_manager"
        command = ("unshare", "-rm", "sh", "-c", inside)
        async with manager_process(f"http://{NAME}:{made[0].port}", unused_port(), command, **KEYS) as here:
            fleet = Fleet(made, here, tmp_path / "unused")
            seen = await fleet.until(lambda seen: sum(member["reachable"] for member in seen.values()) == 3)
            assert {name: member["url"] for name, member in seen.items()} == {each.name: each.url for each in made}
