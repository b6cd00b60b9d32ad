"""Arms that take turns, figures by arm, and targets over them. Knows nothing of what is measured."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from tests.bench.kit.ground import Ground

Figures = Mapping[str, float]
Arm = Callable[[], Awaitable[Figures]]
Opened = Callable[[Ground], AbstractAsyncContextManager[Mapping[str, Arm]]]


@dataclass(frozen=True, slots=True)
class Results:
    """The figures of each arm, one mapping a round."""

    rounds: Mapping[str, Sequence[Figures]]

    def values(self, arm: str, figure: str) -> list[float]:
        return [each[figure] for each in self.rounds[arm]]

    def median(self, arm: str, figure: str) -> float:
        return statistics.median(self.values(arm, figure))

    def ratio(self, above: str, below: str, figure: str, figure_below: str | None = None) -> float:
        """The median over the rounds of one arm's figure divided by the other's of the same round."""
        pairs = zip(self.values(above, figure), self.values(below, figure_below or figure), strict=True)
        return statistics.median(a / b for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Target:
    """``name`` is the number of the target list; ``limit`` an upper bound, or a lower one where ``at_least``."""

    name: str
    says: str
    figure: Callable[[Results], float]
    limit: float
    at_least: bool = False
    required: bool = False
    unit: str = "×"


@dataclass(frozen=True, slots=True)
class Bench:
    """``opened`` gives the arms while what they need is running; ``columns`` are the figures to show, with their units."""

    name: str
    title: str
    opened: Opened
    columns: Sequence[str]
    targets: Sequence[Target] = ()
    rounds: int = 5
    quick_rounds: int = 1
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Verdict:
    target: Target
    value: float

    @property
    def is_met(self) -> bool:
        return self.value >= self.target.limit if self.target.at_least else self.value <= self.target.limit


async def take_turns(bench: Bench, ground: Ground) -> Results:
    """Every arm once a round, in turn; every second round backwards, so that a drift of the machine favours no arm."""
    rounds = bench.quick_rounds if ground.quick else bench.rounds
    async with bench.opened(ground) as arms:
        found: dict[str, list[Figures]] = {name: [] for name in arms}
        for turn in range(rounds):
            names = list(arms) if turn % 2 == 0 else list(arms)[::-1]
            for name in names:
                found[name].append(await arms[name]())
    return Results(found)


def verdicts(bench: Bench, results: Results) -> list[Verdict]:
    return [Verdict(target, target.figure(results)) for target in bench.targets]


def between(above: str, below: str, figure: str, figure_below: str | None = None) -> Callable[[Results], float]:
    """A target's figure: the ratio of two arms."""
    return lambda results: results.ratio(above, below, figure, figure_below)


def of(arm: str, figure: str) -> Callable[[Results], float]:
    """A target's figure: the median of one arm."""
    return lambda results: results.median(arm, figure)
