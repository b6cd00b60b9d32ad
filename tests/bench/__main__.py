"""``python -m tests.bench [NAMES] [--quick] [--json FILE]``: run benchmarks and print their tables as Markdown.

Ends with 1 when a required target is missed or a benchmark broke.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import uvloop

from shared.server import allow_open_files
from tests.bench.kit.ground import Ground
from tests.bench.kit.report import arms_table, as_json, machine, targets_table
from tests.bench.kit.turns import Bench, Results, Verdict, take_turns, verdicts

NAMES = (
    "append", "delivery", "fanout", "slow", "queue", "create", "pages", "relay", "paced", "idle", "stdout", "stack",
)  # fmt: skip
Done = tuple[Bench, Results, Sequence[Verdict]]


def bench_named(name: str) -> Bench:
    return import_module(f"tests.bench.{name}").BENCH


async def run(names: Sequence[str], quick: bool) -> list[Done]:
    """Those that could be measured: one that breaks says so and must not lose the figures of the others."""
    done: list[Done] = []
    ground = Ground(quick)
    try:
        for name in names:
            bench, began = bench_named(name), time.monotonic()
            try:
                results = await take_turns(bench, ground)
            except Exception:  # noqa: BLE001 - the outermost loop
                say(f"### {name} broke", traceback.format_exc())
                continue
            done.append((bench, results, verdicts(bench, results)))
            say(arms_table(bench, results), targets_table(done[-1][2]))
            say(f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    finally:
        ground.close()
    return done


def say(*paragraphs: str) -> None:
    sys.stdout.write("".join(f"{each}\n\n" for each in paragraphs if each))
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Our code against its limits and its rivals.")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less: to see that it works, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round of every arm there")
    given = parser.parse_args()
    allow_open_files()
    say(f"{machine()}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done = runner.run(run(given.names or NAMES, given.quick))
    say("## Targets", targets_table([each for _, _, found in done for each in found]))
    if given.json is not None:
        given.json.write_text(as_json(done, given.quick))
    missed = [each for _, _, found in done for each in found if each.target.required and not each.is_met]
    return 1 if missed or len(done) < len(given.names or NAMES) else 0


if __name__ == "__main__":
    sys.exit(main())
