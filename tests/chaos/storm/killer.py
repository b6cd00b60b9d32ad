"""What is killed when: a plan made from a seed, carried out on a living stack."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.kit import Stack

ALONE_SECONDS = 15.0  # a kill with no other this long before and after it shows how long one death takes
DENSE_SECONDS = (0.4, 2.0)
FROZEN_SHARE = 0.15
POSTGRES_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class Planned:
    after: float  # seconds since the kill before
    victim: str
    how: signal.Signals
    alone: bool


@dataclass(frozen=True, slots=True)
class Kill:
    at: float
    victim: str
    how: signal.Signals
    alone: bool


def plan(seed: int, kills: int, alone: int, victims: Sequence[str]) -> list[Planned]:
    """``alone`` of the kills stand by themselves, in a row in the middle; the others come close together."""
    chance = random.Random(seed)
    services = [victim for victim in victims if victim != "postgres"]
    first_alone = (kills - alone) // 2 + 1
    planned: list[Planned] = []
    for number in range(1, kills + 1):
        is_alone = first_alone <= number < first_alone + alone
        was_alone = bool(planned) and planned[-1].alone
        frozen = chance.random() < FROZEN_SHARE
        victim = "postgres" if chance.random() < POSTGRES_SHARE else chance.choice(services)
        after = ALONE_SECONDS if is_alone or was_alone else chance.uniform(*DENSE_SECONDS)
        how = signal.SIGSTOP if frozen and victim != "postgres" else signal.SIGKILL
        planned.append(Planned(after, victim, how, is_alone))
    return planned


async def carry_out(stack: Stack, planned: Sequence[Planned], kills: list[Kill]) -> None:
    for each in planned:
        await asyncio.sleep(each.after)  # as planned
        while True:
            try:
                os.kill(stack.pid(each.victim), each.how)
                break
            except (ProcessLookupError, StopIteration, TypeError, ValueError, OSError):
                await asyncio.sleep(0.1)  # it is being started again
        kills.append(Kill(time.monotonic(), each.victim, each.how, each.alone))
