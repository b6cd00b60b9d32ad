"""T4: what a relay hop costs at a human pace, when every event is a wake-up of its own: 50 streams, 20 events a second each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from shared.sse import CutError, FrameReader
from shared.upstream import open_stream
from tests.bench.kit.ground import Ground, Role
from tests.bench.kit.meters import Stopwatch, percentile
from tests.bench.kit.sources import sent_at_ns
from tests.bench.kit.turns import Arm, Bench, Figures, Results, Target, between
from tests.bench.relay import httpx_relay, our_relay, our_source, raw_relay, raw_source

STREAMS, RATE = 50, 20
OURS, RAW, REPARSED, NO_HOP = "ours", "raw sockets", "starlette + httpx-sse, written again", "ours, no hop"


async def listened(url: str, count: int, late_ms: list[float]) -> None:
    stream, reader = await open_stream(f"{url}/s?count={count}&rate={RATE}", {}, 5), FrameReader()
    try:
        while (block := await stream.next(60)) is not None:
            now = time.perf_counter_ns()
            late_ms += [(now - sent) / 1e6 for sent in sent_at_ns(reader.feed(block))]
    except CutError:  # the end of a raw one
        pass
    finally:
        await stream.close()


async def pace(hops: list[Role], count: int) -> Figures:
    watch = Stopwatch([("hop" if index else "source", role.pid) for index, role in enumerate(hops)])
    late_ms: list[float] = []
    await asyncio.gather(*(listened(hops[-1].url, count, late_ms) for _ in range(STREAMS)))
    assert len(late_ms) == STREAMS * count, len(late_ms)
    us = {f"{name} us": spent / len(late_ms) * 1e6 for name, spent in watch.spent().items()}
    return us | {"p50 ms": percentile(late_ms, 50), "p99 ms": percentile(late_ms, 99)}


def added_ms(results: Results) -> float:
    return results.median(OURS, "p50 ms") - results.median(NO_HOP, "p50 ms")


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    source, raw = await ground.role(our_source), await ground.role(raw_source)
    arms = {
        OURS: [source, await ground.role(our_relay, upstream=source.url)],
        RAW: [raw, await ground.role(raw_relay, upstream=raw.url)],
        REPARSED: [source, await ground.role(httpx_relay, upstream=source.url, reparse=True)],
        NO_HOP: [source],
    }
    count = RATE * ground.scaled(4, 1)
    yield {name: partial(pace, hops, count) for name, hops in arms.items()}
    for role in {role.pid: role for hops in arms.values() for role in hops}.values():
        ground.end(role)


BENCH = Bench(
    name="paced",
    title="A relay hop at a pace; 50 streams, 20 events of 300 bytes a second each",
    opened=opened,
    columns=("hop us", "source us", "p50 ms", "p99 ms"),
    targets=(
        Target("T4", "a paced hop over a raw one", between(OURS, RAW, "hop us"), 1.6),
        Target("T4", "a paced hop over httpx-sse's", between(OURS, REPARSED, "hop us"), 0.5),
        Target("T4", "p50 a hop adds", added_ms, 0.5, unit="ms"),
    ),
)
