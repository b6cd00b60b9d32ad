"""Where the events of a stream benchmark come from: the same bytes for every arm, as fast as they can go or at a pace."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from shared.sse import Frame, encode
from tests.bench.kit.runs import payload

HEARTBEAT_SECONDS = 60.0
TURN_EVERY = 64  # writes of one event between two turns of the loop: they reach the kernel together


@dataclass(frozen=True, slots=True)
class Wanted:
    """``count`` events, ``batch`` a write, ``rate`` a second (0: no pace); then the end, or with ``stay`` silence."""

    count: int
    batch: int
    rate: float
    stay: bool


def feed_of(query: str) -> Wanted:
    given = {name: float(values[0]) for name, values in parse_qs(query).items()}
    return Wanted(int(given.get("count", 1)), int(given.get("batch", 1)), given.get("rate", 0.0), bool(given.get("stay")))


def frame(number: int, data: str) -> bytes:
    """An executor's frame of attempt 1, with the time it was made at in ns of the clock all processes share."""
    body = (
        f'{{"t":{time.perf_counter_ns()},"executorCursor":{number},"runId":"run_1","attempt":1,'
        f'"at":"2026-01-01T00:00:00.000Z","kind":"message.delta","data":{data}}}'
    )
    return encode(number, "message.delta", body.encode())


async def raw_feed(wanted: Wanted) -> AsyncIterator[bytes]:
    feed = Feed(wanted)
    while (block := await feed.next(HEARTBEAT_SECONDS)) is not None:
        yield block


class Feed:
    """``shared.sse.Blocks``. A flood repeats one block, so that its making is no part of what is measured."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._data = payload(200)  # with its envelope about 300 bytes
        self._given = 0
        self._block = b"".join(frame(1, self._data) for _ in range(wanted.batch))
        self._next_at = time.perf_counter() + (random.random() / wanted.rate if wanted.rate else 0)

    async def next(self, within: float) -> bytes | None:
        if self._given >= self._wanted.count:
            if self._wanted.stay:
                await asyncio.sleep(within)  # the silence of an idle stream
                return b""
            return None
        self._given += self._wanted.batch
        if self._wanted.rate:
            self._next_at += 1 / self._wanted.rate
            await asyncio.sleep(max(0.0, self._next_at - time.perf_counter()))  # the pace
            return frame(self._given, self._data)
        if self._given % TURN_EVERY == 0:
            await asyncio.sleep(0)
        return self._block

    async def close(self) -> None:
        return None


def sent_at_ns(frames: Iterable[Frame]) -> list[int]:
    """When each was made. Of whole frames: a block of a stream may end within a number."""
    return [int(each.data.split(b'"t":', 1)[1].split(b",", 1)[0]) for each in frames if b'"t":' in each.data]
