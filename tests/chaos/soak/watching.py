"""What is watched while a crowd lives: processes, the loops of the services, how far the log has come, how many runs live."""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.bench.kit.meters import cpu_of
from tests.chaos.soak.figures import Figures, Latencies
from tests.chaos.soak.judge import Sample
from tests.chaos.soak.usage import children_of, looked_at, service_pids, together
from tests.e2e.kit import Stack

SAMPLE_SECONDS = 2.0
PROBE_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
_ALIVE = "SELECT count(*) FROM agent_runs WHERE status = 'running'"
_SAID = "SELECT run_id, cursor, extract(epoch FROM at)::float8 AS at FROM run_events WHERE kind = 'message.completed'"


class Watching:
    """``going_on`` while the crowd lives; ``figures`` afterwards."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._pids = service_pids(stack)  # one that is started anew is no longer counted, and its end shows in the faults
        self._samples: list[Sample] = []
        self._alive: list[int] = []
        self._probes: dict[str, list[float]] = defaultdict(list)
        self._heads: dict[str, list[tuple[int, float]]] = defaultdict(list)  # by run: the log had come so far, then
        self._marks: list[dict[str, float]] = []
        self._engines: dict[str, float] = {}

    @asynccontextmanager
    async def going_on(self) -> AsyncGenerator[None]:
        dsn = self._stack.facts["databaseUrl"]
        counting, listening = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        await listening.add_listener("runyard_events", self._heard)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            urls = {each["name"]: each["url"] for each in self._stack.facts["services"] if each["name"] != "postgres"}
            tasks = [asyncio.create_task(self._sample(counting))]
            tasks += [asyncio.create_task(self._probe(http, name, url)) for name, url in urls.items()]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(*tasks, return_exceptions=True)
                await counting.close()
                await listening.close()

    def all_began(self) -> None:
        """Every run was started: from here on processor time counts."""
        self._marks.append(self._spent())

    def all_lived(self) -> None:
        """The first run is about to end."""
        self._marks.append(self._spent())
        self._engines = together(self._engine_pids())

    def over(self) -> None:
        self._marks.append(self._spent())

    def _spent(self) -> dict[str, float]:
        """Seconds of processor time so far, by service, of all engines and of the machine."""
        spent = {name: use.cpu for name, use in looked_at(self._pids).items()}
        spent["engines"] = sum(_cpu(pid) for pid in self._engine_pids())
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        spent["the whole machine"] = (sum(fields) - fields[3] - fields[4]) / _TICKS
        spent["this tool"] = time.process_time()
        return spent | {"": time.monotonic()}

    def _engine_pids(self) -> list[int]:
        executors = [pid for name, pid in self._pids.items() if name.startswith("executor-") and name[-1].isdigit()
                     and not name.startswith("executor-manager")]  # fmt: skip
        return [child for pid in executors for child in children_of(pid)]

    async def _sample(self, connection: Any) -> None:
        while True:
            alive = await connection.fetchval(_ALIVE)
            self._alive.append(alive)
            self._samples.append(Sample(alive, looked_at(self._pids)))
            await asyncio.sleep(SAMPLE_SECONDS)  # sampling

    async def _probe(self, http: httpx.AsyncClient, name: str, url: str) -> None:
        """How long a service takes to say that it lives: what its loop is behind."""
        while True:
            began = time.monotonic()
            try:
                (await http.get(f"{url}/livez")).raise_for_status()
            except httpx.HTTPError:
                pass  # its time tells
            self._probes[name].append((time.monotonic() - began) * 1e3)
            await asyncio.sleep(PROBE_SECONDS)  # sampling

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        now = time.time()
        for line in str(payload).split("\n"):
            run_id, _, cursor = line.partition(" ")
            self._heads[run_id].append((int(cursor), now))

    async def figures(self, received: Mapping[str, Sequence[float]], start_seconds: Sequence[float]) -> Figures:
        connection = await asyncpg.connect(self._stack.facts["databaseUrl"])
        try:
            said = [(row["run_id"], row["cursor"], row["at"]) for row in await connection.fetch(_SAID)]
        finally:
            await connection.close()
        return Figures(
            samples=self._samples,
            most_alive=max(self._alive, default=0),
            latencies=self._latencies(said, received),
            probes=self._probes,
            starts=[seconds * 1e3 for seconds in start_seconds],
            cpu=_share(self._marks[0], self._marks[1]),
            engines=self._engines,
        )

    def _latencies(self, said: Sequence[tuple[str, int, float]], received: Mapping[str, Sequence[float]]) -> Latencies:
        stored: list[float] = []
        delivered: list[float] = []
        gaps: list[float] = []
        before: dict[str, float] = {}
        for run_id, cursor, at in sorted(said):
            heads = self._heads[run_id]
            index = bisect_left(heads, (cursor, 0.0))
            if index < len(heads):
                stored.append((heads[index][1] - at) * 1e3)
            if run_id in received:
                delivered.append((received[run_id][cursor - 1] - at) * 1e3)
            if run_id in before:
                gaps.append((at - before[run_id]) * 1e3)
            before[run_id] = at
        return Latencies(stored, delivered, gaps)


def _cpu(pid: int) -> float:
    try:
        return cpu_of(pid)
    except OSError:
        return 0.0


def _share(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Of one processor, in per cent."""
    elapsed = after[""] - before[""]
    return {name: (after[name] - spent) / elapsed * 100 for name, spent in before.items() if name and name in after}
