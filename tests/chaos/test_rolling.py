"""Three control planes, two managers and three executors are told to end one after the other: nobody notices."""

from __future__ import annotations

import pytest

from tests.chaos.rolling import environment, rolling
from tests.chaos.storm.__main__ import STACK
from tests.chaos.storm.weather import Force
from tests.e2e.conftest import make_folder
from tests.e2e.kit import running_stack

RUNS = 30


@pytest.mark.rough
@pytest.mark.timeout(400)
async def test_a_rolling_restart_of_everything_fails_no_run_and_shows_no_client_a_gap() -> None:
    with make_folder() as folder, running_stack(folder / "state", *STACK, environment=environment(RUNS)) as stack:
        happened, restarted = await rolling(stack, Force(seed=5, kills=0, runs=RUNS, ticks=12))
    assert happened.broken == [], happened.summary()
    assert len(restarted) == 8
    assert sum(run.connections - 1 for run in happened.followed) >= RUNS, "nobody was cut: nothing was shown"
    assert any(run.promised for run in happened.followed), happened.summary()
