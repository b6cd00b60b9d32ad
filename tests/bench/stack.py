"""T8, T15, T17, T18: what a person feels and what a run costs, on a whole stack as ``runyard up`` makes it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from shared.sse import CutError
from shared.upstream import open_stream
from tests.bench.kit.ground import Ground, parent_of
from tests.bench.kit.meters import Stopwatch, percentile
from tests.bench.kit.turns import Arm, Bench, Figures, Results, Target, of
from tests.e2e.kit import Stack, alive, processes_with, running_stack, script

FIRST, OWN, PYTHON, STOP, KILL = "start → first event", "a 20-event run", "python -c pass", "stop → group gone", "executor killed"
SERVICES = ("control-plane", "executor-manager", "executor-1")
BOUND_SECONDS = 60.0


async def first_event(stack: Stack, runs: int) -> Figures:
    """One run at a time on a stack that has nothing else to do."""
    took_ms: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        run_id = await stack.start("hello")
        async with stack.stream(run_id) as frames:
            async for frame in frames:
                if frame.event == b"attempt.started":
                    took_ms.append((time.perf_counter() - began) * 1e3)
        await stack.until(run_id, "success")
    return {"p50 ms": percentile(took_ms, 50), "p99 ms": percentile(took_ms, 99)}


async def own_cpu(stack: Stack, runs: int) -> Figures:
    """CPU of our processes while runs of twenty events pass, one after the other, each followed to its end. No engine's."""
    pids = [(name, stack.pid(name)) for name in SERVICES]
    guard = ("executor-1", parent_of(stack.pid("executor-1")))
    watch = Stopwatch([*pids, guard], [("postgres", stack.pid("postgres"))])
    events = 0
    for _ in range(runs):
        run_id = await stack.start(script({"repeat": {"count": 14, "say": "tick {i}"}}))
        events += len(await stack.followed(run_id))
    spent = {name: seconds / runs * 1e3 for name, seconds in watch.spent().items()}
    ours = sum(spent[name] for name in SERVICES)
    return {"CPU ms": ours, **{f"{name} ms": value for name, value in spent.items()}, "events": events / runs}


async def python_pass(processes: int) -> Figures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(processes):
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", "pass"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"CPU ms": spent / processes * 1e3}


async def stopped(stack: Stack, runs: int) -> Figures:
    """From the POST until no process of the run is alive; the engine obeys SIGTERM."""
    took_ms: list[float] = []
    for _ in range(runs):
        run_id = await stack.start(script({"say": "up"}, {"hang": True}))
        pids = await _engines(run_id)
        began = time.perf_counter()
        await stack.stop(run_id)
        await _until(lambda pids=pids: not any(map(alive, pids)))
        took_ms.append((time.perf_counter() - began) * 1e3)
        await stack.until(run_id, "canceled")
    return {"p50 ms": percentile(took_ms, 50), "p99 ms": percentile(took_ms, 99)}


async def _engines(run_id: str) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(BOUND_SECONDS):
        while not found:
            await asyncio.sleep(0.05)
            found = processes_with("RUNYARD_RUN", f"{run_id}.")
    return found


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_so():
            await asyncio.sleep(0.001)


async def killed(stack: Stack) -> Figures:
    """SIGKILL to the executor: until a reader at the manager is cut, and until the run's end or next attempt is written."""
    run_id = await stack.start(script({"say": "up"}, {"hang": True}))
    await _engines(run_id)
    await stack.until(run_id, "running")
    facts = stack.facts
    manager = next(each["url"] for each in facts["services"] if each["name"] == "executor-manager")
    headers = {"authorization": f"Bearer {facts['serviceToken']}"}
    reader = await open_stream(f"{manager}/api/provider-runs/{run_id}/stream?executor=executor-1&attempt=1", headers, 5)
    began = time.perf_counter()
    os.kill(stack.pid("executor-1"), signal.SIGKILL)
    noticed_ms = await _cut_after(reader.next, began)
    await reader.close()
    await _lost(stack, run_id)
    took = time.perf_counter() - began
    await stack.stop(run_id)
    await stack.until(run_id, "error", "canceled")
    await _back(stack)
    return {"noticed ms": noticed_ms, "written s": took}


async def _cut_after(following: Callable[[float], object], began: float) -> float:
    try:
        while await following(BOUND_SECONDS):  # pyright: ignore[reportGeneralTypeIssues]
            pass
    except CutError:
        pass
    return (time.perf_counter() - began) * 1e3


async def _lost(stack: Stack, run_id: str) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not any(event["kind"] == "attempt.lost" or "executor_lost" in str(event) for event in await stack.events(run_id)):
            await asyncio.sleep(0.02)


async def _back(stack: Stack) -> None:
    """Until the executor takes runs again."""
    run_id = await stack.start("hello")
    await stack.until(run_id, "success")


def times_python(results: Results) -> float:
    return results.ratio(OWN, PYTHON, "CPU ms")


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    runs = ground.scaled(10, 3)
    with running_stack(ground.folder() / "stack") as stack:
        try:
            await _back(stack)
            yield {
                FIRST: partial(first_event, stack, runs),
                OWN: partial(own_cpu, stack, runs),
                PYTHON: partial(python_pass, 20),
                STOP: partial(stopped, stack, runs),
                KILL: partial(killed, stack),
            }
        finally:
            await stack.client.aclose()


BENCH = Bench(
    name="stack",
    title="A whole stack: executor, manager, control plane, PostgreSQL, the scripted engine",
    opened=opened,
    columns=("p50 ms", "p99 ms", "CPU ms", "control-plane ms", "executor-manager ms", "executor-1 ms", "postgres ms", "events",
             "noticed ms", "written s"),
    targets=(
        Target("T15", "executor killed: a reader at the manager is cut", of(KILL, "noticed ms"), 100, unit="ms"),
        Target("T15", "executor killed: written in PostgreSQL", of(KILL, "written s"), 1, unit="s"),
        Target("T17", "stop → process group gone, p50", of(STOP, "p50 ms"), 100, unit="ms"),
        Target("T18", "own CPU of a 20-event run", of(OWN, "CPU ms"), 15, unit="ms"),
        Target("T18", "the same over `python -c pass`", times_python, 1.5),
    ),
    notes=("First event: from the POST to `attempt.started` in the client's hand. Own CPU: the three services and the guard,",
           "with what they do anyway meanwhile; not the engine, not PostgreSQL."),
)  # fmt: skip
