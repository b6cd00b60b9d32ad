"""Every network between services is bad in turn, and no replica's clock is right: nothing promised to a client is lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from tests.chaos.bent_stack import LINKS, bent_stack
from tests.chaos.storm.clients import Followed
from tests.chaos.storm.weather import Force, Storm, storm
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack
from tests.fault_proxy import FaultProxy

pytestmark = pytest.mark.rough

# An attempt may meet any of them in any order: the executors are fast and slow too, against each other by twenty minutes.
SKEW = {
    "control-plane": 600.0, "control-plane-2": -600.0, "executor-manager": -600.0, "executor-manager-2": 600.0,
    "executor-1": 600.0, "executor-2": -600.0,
}  # fmt: skip
OPTIONS = ("--control-planes", "2", "--managers", "2", "--executors", "2")
SHORT_SECONDS = 1.0
# Long enough to be noticed (silence 6, probe 2) where another way stays open. An executor's own link has none: of its leash of
# 12 s, up to 4 are over when it falls silent (a renewal counts from the reading it quotes).
LONG = {"executor-1": 5.0, "postgres": 9.0, "executor-manager": 9.0}


def silent(proxy: FaultProxy) -> None:
    proxy.silent = True


def delayed(proxy: FaultProxy) -> None:
    proxy.delay_seconds = 0.15


def throttled(proxy: FaultProxy) -> None:
    proxy.bytes_per_second = 20_000


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "cut": FaultProxy.cut, "half open": FaultProxy.half_open, "delayed": delayed, "throttled": throttled, "silent": silent,
}  # fmt: skip


@pytest.fixture
def bent() -> Iterator[tuple[Stack, dict[str, FaultProxy]]]:
    given = {"EXECUTOR_SLOTS": "12"}
    with make_folder() as folder, bent_stack(folder, *OPTIONS, skew=SKEW, environment=given) as made:
        yield made


@pytest.mark.timeout(400)
async def test_on_a_bad_network_and_with_clocks_ten_minutes_off_nothing_is_lost(
    bent: tuple[Stack, dict[str, FaultProxy]],
) -> None:
    stack, proxies = bent

    async def bad_network(_: Storm) -> None:
        """Every fault at every link, alone; then the links fall silent for long, one kind after the other."""
        faults = [(link, fault) for link in LINKS for fault in FAULTS.values()]
        random.Random(3).shuffle(faults)
        for link, fault in faults:
            fault(proxies[link])
            await asyncio.sleep(SHORT_SECONDS)  # how long it lasts
            proxies[link].heal()
        for link, seconds in LONG.items():
            proxies[link].silent = True
            await asyncio.sleep(seconds)  # how long it lasts
            proxies[link].heal()

    happened = await storm(stack, Force(seed=3, kills=0, runs=8, ticks=20), bad_network)
    assert happened.broken == [], happened.summary()
    failed = [f"{run.run_id}: {[frame.data for frame in run.frames[-6:]]}" for run in happened.followed if run.ended != "success"]
    assert failed == [], happened.summary()
    assert any(run.promised for run in happened.followed), happened.summary()
    assert all(each.passed_bytes for each in proxies.values())
    wrong = [seconds for run in happened.followed for seconds in _wrong_by(run)]
    assert min(wrong) < -500, "no executor was slow"
    assert max(wrong) > 500, "no executor was fast"


def _wrong_by(run: Followed) -> list[float]:
    """How far the clocks of a run's executors were from the database's, in seconds."""
    told = [(frame.event, datetime.fromisoformat(json.loads(frame.data)["at"])) for frame in run.frames]
    created = told[0][1]
    return [(at - created).total_seconds() for kind, at in told if kind == b"attempt.started"]
