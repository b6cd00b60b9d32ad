"""``python -m tests.chaos.storm``: storms over a stack of three control planes, two managers and three executors.

Each seed is one storm on a stack of its own. Prints a line a storm and the table of how long deaths took; ends with 1 when
anything did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from shared.server import allow_open_files
from tests.chaos.storm.figures import joined, table, took
from tests.chaos.storm.weather import Force, Storm, storm
from tests.e2e.conftest import make_folder
from tests.e2e.kit import running_stack

STACK = ("--control-planes", "3", "--managers", "2", "--executors", "3")
TOLD_VIOLATIONS = 20


def one(force: Force) -> Storm:
    with (
        make_folder() as folder,
        running_stack(folder / "state", *STACK, environment={"EXECUTOR_SLOTS": str(force.runs)}) as stack,
    ):
        return asyncio.run(storm(stack, force))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description="Kill parts of a busy stack at random.")
    parser.add_argument("--seeds", type=int, default=10, help="how many storms; default 10")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100, help="of each storm; default 100")
    parser.add_argument("--alone", type=int, default=8, help="how many of them stand alone for 15 s, to be timed; default 8")
    parser.add_argument("--runs", type=int, default=100, help="at once; default 100")
    parser.add_argument("--ticks", type=int, default=60, help="a ticking run says at most so many, two a second; default 60")
    given = parser.parse_args()
    allow_open_files()
    storms: list[Storm] = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        storms.append(one(Force(seed, given.kills, given.alone, given.runs, given.ticks)))
        say(storms[-1].summary())
        for broken in storms[-1].broken[:TOLD_VIOLATIONS]:
            say(f"  {broken}")
    timed = [took(each.kills, each.followed) for each in storms]
    say("\n" + table(joined(timed)))
    return 1 if any(each.broken for each in storms) else 0


if __name__ == "__main__":
    sys.exit(main())
