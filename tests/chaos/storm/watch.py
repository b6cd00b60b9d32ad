"""What must hold at every moment of a storm: never two engines of one run, no living run without a driver for long."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from control_plane.storage.failures import LOST_CONNECTION

EVERY_SECONDS = 0.25
DRIVERLESS_SECONDS = 25.0  # lease 6, poll 1, and ten more for a loaded machine; then it counts
_ENGINE = b"scripted_engine"
_MARK = b"RUNYARD_RUN="

_DRIVERLESS = """
SELECT head.run_id FROM run_heads AS head JOIN agent_runs AS run ON run.id = head.run_id
WHERE run.status IN ('running', 'waiting_user', 'stopping')
  AND head.claim_after <= now() AND (head.lease_until IS NULL OR head.lease_until < now())
"""


@dataclass(frozen=True, slots=True)
class Engine:
    run_id: str
    attempt: str
    pid: int
    parent: int


def engines() -> Iterator[Engine]:
    """Every living engine process of this machine, with the wall round it: that carries the same mark and command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if _ENGINE not in (entry / "cmdline").read_bytes():
                continue
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            environ = (entry / "environ").read_bytes()
        except (OSError, ValueError):
            continue
        mark = next((line for line in environ.split(b"\0") if line.startswith(_MARK)), None)
        if mark is not None and state not in "ZX":
            run_id, _, attempt = mark.removeprefix(_MARK).decode().rpartition(".")
            yield Engine(run_id, attempt, int(entry.name), int(parent))


def twins(found: Iterable[Engine]) -> dict[str, frozenset[int]]:
    """Runs with more than one tree of engine processes: the pids of the trees' roots."""
    of_run: dict[str, list[Engine]] = defaultdict(list)
    for engine in found:
        of_run[engine.run_id].append(engine)
    roots = {run_id: _roots(of_one) for run_id, of_one in of_run.items()}
    return {run_id: frozenset(engine.pid for engine in trees) for run_id, trees in roots.items() if len(trees) > 1}


def _roots(of_one: Sequence[Engine]) -> list[Engine]:
    pids = {engine.pid for engine in of_one}
    return [engine for engine in of_one if engine.parent not in pids]


class Watch:
    """``run`` until cancelled; then ``broken`` tells what did not hold. ``ours``: the runs of this storm, so far."""

    def __init__(self, dsn: str, ours: Callable[[], Collection[str]]) -> None:
        self._dsn = dsn
        self._ours = ours
        self._driverless: dict[str, float] = {}
        self._twins: dict[str, frozenset[int]] = {}
        self.broken: list[str] = []
        self._looks = 0
        self._has_seen_engines = False

    async def run(self) -> None:
        while True:
            self._count_engines()
            if self._looks % 4 == 0:
                await self._look_for_driverless()
            self._looks += 1
            await asyncio.sleep(EVERY_SECONDS)  # sampling

    def verdict(self, watching: asyncio.Task[Any]) -> list[str]:
        """What did not hold, as far as this looked. ``watching``: its ``run``, not cancelled yet."""
        blind = [] if self._has_seen_engines else ["the watch never saw an engine"]
        died = [f"the watch died: {watching.exception()!r}"] if watching.done() else []
        return [*self.broken, *blind, *died]

    def _count_engines(self) -> None:
        """A tree whose root has just been killed falls apart for a moment: only what is still there at the next look counts."""
        ours = self._ours()
        living = [engine for engine in engines() if engine.run_id in ours]
        self._has_seen_engines = self._has_seen_engines or bool(living)
        found = twins(living)
        for run_id, pids in found.items():
            if len(pids & self._twins.get(run_id, frozenset())) > 1:
                self.broken.append(f"{run_id} has {len(pids)} living engines: {sorted(pids)}")
        self._twins = found

    async def _look_for_driverless(self) -> None:
        try:
            async with asyncio.timeout(5):
                connection = await asyncpg.connect(self._dsn)
                try:
                    found = {row["run_id"] for row in await connection.fetch(_DRIVERLESS)}
                finally:
                    await connection.close()
        except LOST_CONNECTION:
            self._driverless.clear()  # no database, no driver: its time begins when it is back
            return
        now = time.monotonic()
        self._driverless = {run_id: self._driverless.get(run_id, now) for run_id in found}
        for run_id, since in self._driverless.items():
            if now - since > DRIVERLESS_SECONDS:
                self.broken.append(f"{run_id} has been without a driver for {now - since:.0f} s")
