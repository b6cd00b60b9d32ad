"""``python -m tests.chaos.soak.flood``: a flood, a giant line, readers that never read and a Postgres that stands still, at once.

Ends with 1 when a process grew by more than its bound, or an event of the flood is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from shared.contracts.runs import TERMINAL
from shared.server import allow_open_files
from tests.chaos.soak.judge import Sample, peaks
from tests.chaos.soak.usage import children_of, looked_at, service_pids
from tests.chaos.storm.__main__ import say
from tests.chaos.storm.check import said_faults
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack, script

SAMPLE_SECONDS = 0.2
RUN_SECONDS = 600.0
WORDS = "x" * 280
GIANT_BYTES = 32 * 1024 * 1024
WARM_UP_RUNS = 20


async def flood(stack: Stack, events: int, readers: int, pause_seconds: float) -> tuple[Sample, list[Sample], list[str]]:
    """What each process used before, what it used meanwhile, and what is missing."""
    for _ in range(WARM_UP_RUNS):
        await stack.until(await stack.start(script({"repeat": {"count": 50, "say": "tick {i}"}})), "success")
    before, samples = Sample(0, looked_at(service_pids(stack))), list[Sample]()
    sampling = asyncio.create_task(_sample(stack, samples))
    try:
        flooding = await stack.start(script({"repeat": {"count": events, "say": f"{WORDS} tick {{i}}"}}))
        giant = await stack.start(script({"say": "before"}, {"bigLine": GIANT_BYTES}, {"say": "after"}))
        await _come_to(stack, flooding, 100)
        deaf = [await _never_reads(stack, flooding) for _ in range(readers)]
        await _stand_still(stack, pause_seconds)
        for run_id in (giant, flooding):
            await stack.until(run_id, *TERMINAL, within=RUN_SECONDS)
        for each in deaf:
            each.close()
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    said = [event["data"]["text"] for event in await stack.events(flooding) if event["kind"] == "message.completed"]
    faults = said_faults(flooding, [text.removeprefix(f"{WORDS} ") for text in said], events)
    for run_id in (giant, flooding):
        faults += [] if (await stack.show(run_id))["status"] == "success" else [f"{run_id} ended as {await stack.show(run_id)}"]
    await stack.client.aclose()
    return before, samples, faults


async def _sample(stack: Stack, samples: list[Sample]) -> None:
    pids = service_pids(stack)
    while True:
        samples.append(Sample(0, looked_at(pids)))
        await asyncio.sleep(SAMPLE_SECONDS)  # sampling


async def _come_to(stack: Stack, run_id: str, cursor: int) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while (await stack.show(run_id))["lastCursor"] < cursor:
        assert time.monotonic() < deadline, f"{run_id} never came to {cursor}"
        await asyncio.sleep(0.05)  # polling a condition with a bound


async def _never_reads(stack: Stack, run_id: str) -> socket.socket:
    """Asks for the stream and takes nothing of it."""
    url, loop, connection = urlsplit(stack.facts["apiUrl"]), asyncio.get_running_loop(), socket.socket()
    connection.setblocking(False)
    await loop.sock_connect(connection, (url.hostname or "", url.port or 0))
    head = f"GET /api/runs/{run_id}/stream?cursor=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.facts['apiKey']}\r\n\r\n"
    await loop.sock_sendall(connection, head.encode())
    return connection


async def _stand_still(stack: Stack, seconds: float) -> None:
    """The whole of Postgres is frozen: no statement is answered, and no connection breaks."""
    server = stack.pid("postgres")
    frozen = [server, *children_of(server)]
    for pid in frozen:
        _signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)  # so long it is to stand still
    finally:
        for pid in frozen:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # a backend that has just ended


def grown(before: Sample, samples: Sequence[Sample], bound_mib: float) -> tuple[str, list[str]]:
    """Markdown, and who grew by more."""
    lines, faults = ["| service | RSS before, MiB | peak | grown by |", "| --- | --- | --- | --- |"], list[str]()
    for name, most in peaks(samples).items():
        if name not in before.uses:
            continue
        by = most.rss - before.uses[name].rss
        lines.append(f"| {name} | {before.uses[name].rss:.0f} | {most.rss:.0f} | {by:.0f} |")
        faults += [f"{name} grew by {by:.0f} MiB"] if by > bound_mib and name != "postgres" else []
    return "\n".join(lines), faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak.flood", description="All that fills buffers, at once.")
    parser.add_argument("--events", type=int, default=100_000, help="of the flood, 300 bytes each; default 100,000")
    parser.add_argument("--readers", type=int, default=50, help="that never read; default 50")
    parser.add_argument("--pause", type=float, default=15, help="seconds for which Postgres stands still; default 15")
    parser.add_argument("--bound", type=float, default=128, help="MiB by which a process may grow; default 128")
    given = parser.parse_args()
    allow_open_files()
    with make_folder() as folder, running_stack(folder / "state", environment={"EXECUTOR_CONTAINMENT": "none"}) as stack:
        began = time.monotonic()
        before, samples, faults = asyncio.run(flood(stack, given.events, given.readers, given.pause))
        took = time.monotonic() - began
    table, grew = grown(before, samples, given.bound)
    say(f"{given.events} events, {given.readers} readers that never read, Postgres still for {given.pause:g} s: {took:.0f} s, "
        f"load {os.getloadavg()[0]:.1f}\n\n{table}\n")  # fmt: skip
    for each in (broken := grew + faults):
        say(f"  {each}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
