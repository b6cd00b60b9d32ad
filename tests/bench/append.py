"""T5: what it costs to make events durable, in windows through our recorder's own path and row by row."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import asyncpg

from control_plane.domain.run import Lease
from control_plane.runs.record import WINDOW_ROWS
from control_plane.storage.run_log import RunLog, Write
from tests.bench.kit.ground import Database, Ground
from tests.bench.kit.meters import Stopwatch
from tests.bench.kit.runs import AT, deltas, payload, pool_of, running_runs
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of

WINDOWED, FULL, BARE = "windows of 64, RunLog", "windows of 256, RunLog", "bare unnest ×64"
BY_ROW, BARE_ROW = "row by row, lease proved and number given", "row by row, bare INSERT"
ROW = """INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, raw_ref, fcmp_seq)
         VALUES ($1, $2, 1, 'message.delta', $3, $4, NULL, 0)"""
# The same promise a row at a time, as plainly as it can be had: one statement proves the lease, takes the next number, appends.
PROVED_ROW = """WITH head AS (UPDATE run_heads SET last_cursor = last_cursor + 1
                              WHERE run_id = $1 AND lease_token = $2 RETURNING last_cursor)
                INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, raw_ref, fcmp_seq)
                SELECT $1, last_cursor, 1, 'message.delta', $3, $4, NULL, 0 FROM head"""
UNNEST = """INSERT INTO run_events (run_id, cursor, attempt, kind, at, data, raw_ref, fcmp_seq)
            SELECT *, 0 FROM unnest($1::text[], $2::bigint[], $3::int[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])"""
RUNS = 20
STRIDE = 1000  # between the executor's numbers of two windows: more than a window is long
FIRST_BARE = 1_000_000  # beyond every cursor that is given by a head


class Appending:
    """Every way of appending, to the same runs; numbers go on from arm to arm."""

    def __init__(self, database: Database, pool: asyncpg.Pool, leases: list[Lease], bare: asyncpg.Connection) -> None:
        self._database = database
        self._log = RunLog(pool, ())
        self._leases = leases
        self._bare = bare
        self._data = payload()
        self._news = count(1)
        self._cursors = dict.fromkeys((lease.run_id for lease in leases), FIRST_BARE)

    async def measured(self, append: Callable[[int], Awaitable[None]], events: int) -> Figures:
        watch = Stopwatch([("client", os.getpid())], [("postgres", self._database.server_pid)])
        await append(events)
        spent, elapsed = watch.spent(), watch.elapsed
        per = {f"{name} ms/1k": seconds / events * 1e6 for name, seconds in spent.items()}
        return {"ms/1k": sum(per.values()), **per, "events/s": events / elapsed}

    async def windows(self, size: int, events: int) -> None:
        for turn in range(events // size):
            lease = self._leases[turn % RUNS]
            first = next(self._news) * STRIDE
            await self._log.write([Write(lease.run_id, deltas(first, size, self._data), lease.token)])

    async def unnest(self, size: int, events: int) -> None:
        for turn in range(events // size):
            run_id = self._leases[turn % RUNS].run_id
            first = self._cursors[run_id]
            self._cursors[run_id] += size
            await self._bare.execute(
                UNNEST, [run_id] * size, list(range(first, first + size)), [1] * size, ["message.delta"] * size,
                [AT] * size, [self._data] * size, [None] * size,
            )  # fmt: skip

    async def proved_rows(self, events: int) -> None:
        for turn in range(events):
            lease = self._leases[turn % RUNS]
            await self._bare.execute(PROVED_ROW, lease.run_id, lease.token, AT, self._data)

    async def rows(self, events: int) -> None:
        for turn in range(events):
            run_id = self._leases[turn % RUNS].run_id
            await self._bare.execute(ROW, run_id, self._cursors[run_id], AT, self._data)
            self._cursors[run_id] += 1


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    many, few = ground.scaled(25_600, 6_400), ground.scaled(2_000, 500)
    async with ground.database() as database, pool_of(database.dsn) as pool:
        bare = await asyncpg.connect(database.dsn)
        try:
            appending = Appending(database, pool, await running_runs(pool, RUNS), bare)
            measured = appending.measured
            yield {
                WINDOWED: partial(measured, partial(appending.windows, 64), many),
                FULL: partial(measured, partial(appending.windows, WINDOW_ROWS), many),
                "windows of 1, RunLog": partial(measured, partial(appending.windows, 1), few),
                BARE: partial(measured, partial(appending.unnest, 64), many),
                BY_ROW: partial(measured, appending.proved_rows, few),
                BARE_ROW: partial(measured, appending.rows, few),
            }
        finally:
            await bare.close()


BENCH = Bench(
    name="append",
    title="Durable append of 300-byte events",
    opened=opened,
    columns=("ms/1k", "client ms/1k", "postgres ms/1k", "events/s"),
    targets=(
        Target("T5", "append in full windows is cheaper than bare INSERTs row by row", between(BARE_ROW, FULL, "ms/1k"), 10,
               at_least=True, required=True),
        Target("T5", "append in windows of 64, over bare INSERTs row by row", between(BARE_ROW, WINDOWED, "ms/1k"), 10,
               at_least=True),
        Target("T5", "append in windows of 64, over row by row with the same promise", between(BY_ROW, WINDOWED, "ms/1k"), 10,
               at_least=True),
        Target("T5", "CPU of a thousand events in windows of 64", of(WINDOWED, "ms/1k"), 8, unit="ms"),
    ),
    notes=("CPU of writer and PostgreSQL. «RunLog» locks heads, reads statuses, numbers, appends, and moves heads.",),
)  # fmt: skip
