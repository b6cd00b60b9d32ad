"""Many runs, clients and questions while parts of the stack are killed and frozen at random: nothing promised is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.storm.__main__ import STACK
from tests.chaos.storm.killer import plan
from tests.chaos.storm.watch import Engine, twins
from tests.chaos.storm.weather import Force, storm
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, running_stack

KILLS = 40


@pytest.fixture
def fleet() -> Iterator[Stack]:
    with make_folder() as folder, running_stack(folder / "state", *STACK, environment={"EXECUTOR_SLOTS": "12"}) as stack:
        yield stack


@pytest.mark.chaos
@pytest.mark.timeout(420)
async def test_forty_kills_lose_nothing_double_nothing_and_leave_nothing(fleet: Stack) -> None:
    happened = await storm(fleet, Force(seed=7, kills=KILLS, runs=12, ticks=12))
    assert happened.broken == [], happened.summary()
    assert len(happened.kills) == KILLS
    ends = {run.ended for run in happened.followed}
    assert "success" in ends, happened.summary()
    assert any(run.promised for run in happened.followed), happened.summary()
    assert sum(run.connections - 1 for run in happened.followed), happened.summary()


def test_a_seed_gives_the_same_plan_again_and_another_one_another() -> None:
    victims = ["postgres", "executor-1", "executor-2", "executor-manager", "control-plane", "control-plane-2"]
    assert plan(1, 100, 8, victims) == plan(1, 100, 8, victims)
    assert plan(1, 100, 8, victims) != plan(2, 100, 8, victims)
    assert {each.victim for each in plan(1, 100, 8, victims)} == set(victims)
    assert sum(each.alone for each in plan(1, 100, 8, victims)) == 8


def test_two_trees_of_engines_are_twins_and_an_engine_in_its_wall_is_none() -> None:
    walled = [Engine("run_a", "1", 10, 1), Engine("run_a", "1", 11, 10), Engine("run_a", "1", 12, 11)]
    assert twins(walled) == {}
    assert twins([*walled, Engine("run_b", "1", 20, 1)]) == {}
    assert twins([*walled, Engine("run_a", "2", 30, 1)]) == {"run_a": frozenset({10, 30})}
