"""One storm: a stack, so many runs and clients at once, a plan of kills; then calm, and the checker."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.chaos.storm.check import violations
from tests.chaos.storm.clients import ASKING, TICKING, Client, Followed
from tests.chaos.storm.killer import Kill, carry_out, plan
from tests.chaos.storm.watch import Watch
from tests.e2e.kit import Stack

CALM_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Force:
    """How much of a storm."""

    seed: int
    kills: int
    alone: int = 0
    runs: int = 20  # at once
    ticks: int = 20


@dataclass
class Storm:
    """What happened, and what did not hold."""

    force: Force
    followed: list[Followed] = field(default_factory=list[Followed])
    kills: list[Kill] = field(default_factory=list[Kill])
    broken: list[str] = field(default_factory=list[str])
    seconds: float = 0

    def summary(self) -> str:
        ends = Counter(run.ended or "open" for run in self.followed)
        told = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
        again = sum(run.connections - 1 for run in self.followed)
        replies = sum(len(run.promised) for run in self.followed)
        return (
            f"seed {self.force.seed}: {len(self.kills)} kills, {len(self.followed)} runs ({told}), {replies} replies accepted, "
            f"{again} reconnections, {sum(len(run.frames) for run in self.followed)} events, {self.seconds:.0f} s, "
            f"{len(self.broken)} violations"
        )


async def storm(stack: Stack, force: Force, trouble: Callable[[Storm], Awaitable[None]] | None = None) -> Storm:
    """Runs are started until the last kill was made, or ``trouble`` is over; then all may end in calm, within a bound."""
    happened, began = Storm(force), time.monotonic()
    facts = stack.facts
    victims = [service["name"] for service in facts["services"]]
    watch = Watch(facts["databaseUrl"], lambda: {run.run_id for run in happened.followed})
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {facts['apiKey']}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False) as http:
        watching = asyncio.create_task(watch.run())
        over = asyncio.Event()
        clients = [asyncio.create_task(_clients(stack, http, happened, over, number)) for number in range(force.runs)]
        try:
            if trouble is not None:
                await trouble(happened)
            else:
                await carry_out(stack, plan(force.seed, force.kills, force.alone, victims), happened.kills)
            over.set()
            _, late = await asyncio.wait(clients, timeout=CALM_SECONDS)
            happened.broken += [f"{run.run_id} hangs after {run.cursor} events" for run in happened.followed if run.ended is None]
            happened.broken += [
                f"a client failed: {task.exception()!r}" for task in clients if task not in late and task.exception()
            ]
        finally:
            happened.broken += watch.verdict(watching)
            for task in (*clients, watching):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*clients, watching, return_exceptions=True)
    happened.broken += await violations(stack.facts["databaseUrl"], happened.followed)
    happened.seconds = time.monotonic() - began
    return happened


async def _clients(stack: Stack, http: httpx.AsyncClient, happened: Storm, over: asyncio.Event, number: int) -> None:
    """One run after the other; every third one asks."""
    chance = random.Random(f"{happened.force.seed}/{number}")
    client = Client(lambda: _control_planes(stack), http, chance)
    turn = number
    while not over.is_set():
        kind = ASKING if turn % 3 == 0 else TICKING
        turn += 1
        await client.one_run(kind, chance.randint(1, happened.force.ticks), happened.followed.append)


def _control_planes(stack: Stack) -> list[str]:
    return [service["url"] for service in stack.facts["services"] if service["name"].startswith("control-plane")]
