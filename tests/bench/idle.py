"""T11 and T12: thousands of idle streams through one relay, and all of them dropped at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from shared.upstream import Upstream, open_stream
from tests.bench.kit.ground import Ground, Role
from tests.bench.kit.meters import Stopwatch, pss_kib
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of
from tests.bench.relay import httpx_relay, our_relay, our_source

FEW, MANY, HTTPX = "ours, few", "ours, five times as many", "starlette + httpx, few"
AT_ONCE = 64
DROP_SECONDS = 30.0


def sockets(role: Role) -> int:
    return len(os.listdir(f"/proc/{role.pid}/fd"))


async def opened_streams(url: str, count: int) -> list[Upstream]:
    """Each with its first event taken, so that all of them idle."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> Upstream:
        async with gate:
            stream = await open_stream(f"{url}/s?count=1&stay=1", {}, 30, 30)
            while b"executorCursor" not in (await stream.next(30) or b"executorCursor"):
                pass
            return stream

    return await asyncio.gather(*(one() for _ in range(count)))


async def idling(ground: Ground, relay: str, count: int) -> Figures:
    source = await ground.role(our_source)
    told = {"reparse": False} if relay == "httpx" else {}
    hop = await ground.role(httpx_relay if relay == "httpx" else our_relay, upstream=source.url, **told)
    try:
        warm = await opened_streams(hop.url, 10)
        memory, held, watch = pss_kib(hop.pid), sockets(source), Stopwatch([("hop", hop.pid)])
        streams = await opened_streams(hop.url, count)
        opened_in, cpu = watch.elapsed, watch.spent()["hop"]
        kib = (pss_kib(hop.pid) - memory) / count
        dropped = await _drop(streams, source, held)
        for stream in warm:
            await stream.close()
        return {
            "KiB/stream": kib, "open ms CPU/stream": cpu / count * 1e3, "open s": opened_in,
            "streams": count, "dropped s": dropped, "left": max(0, sockets(source) - held),
        }  # fmt: skip
    finally:
        ground.end(hop)
        ground.end(source)


async def _drop(streams: list[Upstream], source: Role, held: int) -> float:
    """Seconds from the first drop until the source holds none of them, at most ``DROP_SECONDS``."""
    began = time.perf_counter()
    for stream in streams:
        stream.abort()
    while sockets(source) > held and time.perf_counter() - began < DROP_SECONDS:
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    few = ground.scaled(1_000, 200)
    yield {
        FEW: partial(idling, ground, "ours", few),
        MANY: partial(idling, ground, "ours", 5 * few),
        HTTPX: partial(idling, ground, "httpx", few),
    }


BENCH = Bench(
    name="idle",
    title="Idle streams through one relay, and their drop at once",
    opened=opened,
    columns=("KiB/stream", "open ms CPU/stream", "open s", "streams", "dropped s", "left"),
    targets=(
        Target("T11", "memory of an idle stream in the relay", of(MANY, "KiB/stream"), 32, unit="KiB"),
        Target("T11", "CPU of opening one", of(MANY, "open ms CPU/stream"), 0.5, unit="ms"),
        Target("T11", "memory of a stream, 5,000 over 1,000", between(MANY, FEW, "KiB/stream"), 1.5),
        Target("T11", "opening of a stream, 5,000 over 1,000", between(MANY, FEW, "open ms CPU/stream"), 1.5),
        Target("T12", "5,000 dropped at once: upstreams closed", of(MANY, "dropped s"), 2, unit="s"),
        Target("T12", "of them left", of(MANY, "left"), 0, unit="streams"),
    ),
    rounds=3,
    notes=("Memory is the growth of the relay's PSS. Few is 1,000; a fresh relay and source each time; three rounds.",),
)
