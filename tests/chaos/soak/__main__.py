"""``python -m tests.chaos.soak``: ten thousand runs through one stack, and whether its memory stays what it was.

Runs are followed, waited for or left alone; some ask, fail, are stopped or go on with a session. Ends with 1 when the memory of a
control plane or a manager is not the same within a fifth, or a run did not end as its script says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterable, Sequence

from shared.server import allow_open_files
from tests.chaos.soak.judge import Sample, memory_table, not_flat, services, windows
from tests.chaos.soak.runs import Caller
from tests.chaos.soak.usage import looked_at, service_pids
from tests.chaos.storm.__main__ import say
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack

SAMPLE_SECONDS = 1.0
SAY_EVERY = 1_000
TOLD_FAULTS = 20
PROMISED = ("control-plane", "executor-manager")


async def soak(stack: Stack, runs: int, concurrency: int) -> tuple[list[Sample], list[str]]:
    """What was sampled, and what did not end as its script says."""
    samples: list[Sample] = []
    async with Caller(stack) as caller:
        sampling = asyncio.create_task(_sample(stack, caller, samples))
        numbers = iter(range(runs))
        workers = [asyncio.create_task(_work(caller, numbers)) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (*workers, sampling):
                task.cancel()
            await asyncio.gather(*workers, sampling, return_exceptions=True)
        samples.append(Sample(caller.finished, looked_at(service_pids(stack))))
        return samples, caller.faults


async def _work(caller: Caller, numbers: Iterable[int]) -> None:
    for number in numbers:
        await caller.one(number)


async def _sample(stack: Stack, caller: Caller, samples: list[Sample]) -> None:
    began, said = time.monotonic(), 0
    while True:
        samples.append(Sample(caller.finished, looked_at(service_pids(stack))))
        if caller.finished // SAY_EVERY > said:
            said = caller.finished // SAY_EVERY
            now = ", ".join(f"{name} {use.rss:.0f}" for name, use in samples[-1].uses.items())
            say(f"{caller.finished} runs, {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}: {now}")
        await asyncio.sleep(SAMPLE_SECONDS)  # sampling


def promised(samples: Sequence[Sample]) -> list[str]:
    return [name for name in services(samples) if name.startswith(PROMISED)]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description="Ten thousand runs, and what they leave in memory."
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=32, help="runs at once; default 32")
    parser.add_argument("--warm-up", type=int, default=1_000, help="runs before the first window; default 1,000")
    parser.add_argument("--window", type=int, default=1_000, help="runs of a window; default 1,000")
    parser.add_argument("--control-planes", type=int, default=1)
    parser.add_argument("--executors", type=int, default=1)
    parser.add_argument("--containment", default="none", help="of engines; default none, the cheapest")
    given = parser.parse_args()
    early, late = windows(given.runs, given.warm_up, given.window)
    allow_open_files()
    environment = {"EXECUTOR_SLOTS": str(given.concurrency), "EXECUTOR_CONTAINMENT": given.containment}
    options = ("--control-planes", str(given.control_planes), "--executors", str(given.executors))
    with make_folder() as folder, running_stack(folder / "state", *options, environment=environment) as stack:
        began = time.monotonic()
        samples, faults = asyncio.run(soak(stack, given.runs, given.concurrency))
        took = time.monotonic() - began
    say(f"\n{given.runs} runs in {took:.0f} s, load {os.getloadavg()[0]:.1f}\n\n{memory_table(samples, early, late)}")
    broken = not_flat(samples, early, late, promised(samples)) + faults
    for each in broken[:TOLD_FAULTS]:
        say(f"  {each}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
