"""The runner of the benchmarks works; what it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES, bench_named
from tests.bench.kit.ground import Ground
from tests.bench.kit.report import arms_table, targets_table
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of, take_turns, verdicts

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 100


def test_a_benchmark_can_be_run_and_its_rounds_be_read(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "stdout", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert "## Targets" in done.stdout
    told = json.loads(file.read_text())
    [bench] = told["benches"]
    assert (bench["name"], told["quick"]) == ("stdout", True)
    assert {target["name"] for target in bench["targets"]} == {"T14"}
    assert all(rounds for rounds in bench["arms"].values())


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_aims_at(name: str) -> None:
    bench = bench_named(name)
    assert bench.name == name
    assert bench.targets
    assert bench.columns
    assert bench.rounds >= 3


def made_of(figures: Mapping[str, list[float]], order: list[str], rounds: int = 3, quick_rounds: int = 1) -> Bench:
    """Arms whose figures are known."""
    given = {name: iter(values) for name, values in figures.items()}

    def arm(name: str) -> Arm:
        async def measured() -> Figures:
            order.append(name)
            return {"cost": next(given[name])}

        return measured

    @asynccontextmanager
    async def opened(_ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
        yield {name: arm(name) for name in figures}

    targets = (Target("T0", "a over b", between("a", "b", "cost"), 2, required=True), Target("T0", "b", of("b", "cost"), 3))
    return Bench("made", "Made up", opened, ("cost",), targets, rounds, quick_rounds)


async def test_arms_take_turns_and_every_second_round_goes_backwards() -> None:
    order: list[str] = []
    await take_turns(made_of({"a": [1.0] * 3, "b": [1.0] * 3}, order, rounds=3), Ground(quick=False))
    assert order == ["a", "b", "b", "a", "a", "b"]


async def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """Not the ratio of the medians: a slow moment of the machine is in both arms of its round."""
    bench = made_of({"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 4.0]}, [], rounds=3)
    results = await take_turns(bench, Ground(quick=False))
    ratio, b = verdicts(bench, results)
    assert (ratio.value, ratio.is_met) == (2.0, True)
    assert (b.value, b.is_met) == (4.0, False)
    assert "| a | 4 (2–30) |" in arms_table(bench, results)
    assert "**missed**" in targets_table([b])
    assert "(required) | 2 × | met |" in targets_table([ratio])


async def test_a_quick_run_takes_fewer_rounds() -> None:
    order: list[str] = []
    await take_turns(made_of({"a": [1.0] * 3, "b": [1.0] * 3}, order, rounds=3, quick_rounds=1), Ground(quick=True))
    assert order == ["a", "b"]
