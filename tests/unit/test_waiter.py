"""The hot wait of tails and relays, and what a stream does with a caller that takes nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from shared import sse
from shared.sse import ABORT, DIRECT, EventStream
from shared.waiter import Waiter


async def test_a_wake_ends_the_wait_and_the_next_wait_is_a_new_one() -> None:
    waiter = Waiter()
    for _ in range(3):
        waiting = asyncio.ensure_future(waiter.wait(30))
        await asyncio.sleep(0)
        waiter.wake()
        waiter.wake()
        async with asyncio.timeout(5):
            await waiting
    waiter.close()


async def test_a_wake_while_nobody_waits_is_forgotten() -> None:
    waiter = Waiter()
    waiter.wake()
    began = time.monotonic()
    await waiter.wait(0.05)
    assert time.monotonic() - began >= 0.04


async def test_a_short_wait_is_short_after_a_long_one() -> None:
    waiter = Waiter()
    long = asyncio.ensure_future(waiter.wait(30))
    await asyncio.sleep(0)
    waiter.wake()
    await long
    async with asyncio.timeout(5):
        await waiter.wait(0.01)


async def test_a_timer_left_from_a_short_wait_does_not_cut_a_longer_one() -> None:
    waiter = Waiter()
    short = asyncio.ensure_future(waiter.wait(0.05))
    await asyncio.sleep(0)
    waiter.wake()
    await short
    began = time.monotonic()
    await waiter.wait(0.3)
    assert time.monotonic() - began >= 0.25


async def test_a_cancelled_wait_leaves_a_waiter_that_can_wait() -> None:
    waiter = Waiter()
    waiting = asyncio.ensure_future(waiter.wait(30))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await waiter.wait(0.01)
    waiter.close()


class _Endless:
    """Always a block; knows whether it was closed."""

    is_closed = False

    async def next(self, within: float) -> bytes | None:
        return b"data: x\n\n"

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("way", [{}, {"direct": True}], ids=["through the wrappers", "straight to the server"])
async def test_a_caller_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, way: dict[str, bool]) -> None:
    monkeypatch.setattr(sse, "STALL_SECONDS", 0.2)
    blocks, cuts, taken = _Endless(), list[str](), 0

    async def send(message: Any) -> None:
        nonlocal taken
        taken += 1
        if taken > 5:
            await asyncio.Event().wait()  # its buffers are full

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope: dict[str, Any] = {"method": "GET", ABORT: lambda: cuts.append("cut"), **({DIRECT: send} if way else {})}
    async with asyncio.timeout(10):
        await EventStream(blocks, heartbeat_seconds=1)(scope, receive, send)
    assert (cuts, blocks.is_closed) == (["cut"], True)


async def test_a_slow_caller_that_goes_on_taking_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STALL_SECONDS", 0.2)
    cuts, taken, gone = list[str](), 0, asyncio.Event()

    async def send(message: Any) -> None:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0.05)  # slow, but it takes
        if taken == 12:
            gone.set()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(10):
        await EventStream(_Endless(), heartbeat_seconds=1)({"method": "GET", ABORT: lambda: cuts.append("cut")}, receive, send)
    assert (cuts, taken >= 12) == ([], True)
