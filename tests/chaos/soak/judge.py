"""Whether figures keep a promise. Pure: what was sampled in, tables and faults out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from tests.chaos.soak.usage import Use

FLAT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """What every service used when so many runs were over."""

    finished: int
    uses: Mapping[str, Use]


@dataclass(frozen=True, slots=True)
class Window:
    """Samples with ``after`` ≤ finished < ``before``."""

    after: int
    before: int

    def median(self, samples: Sequence[Sample], service: str, figure: str) -> float | None:
        """None where nothing was sampled."""
        inside = [each.uses[service] for each in samples if self.after <= each.finished < self.before and service in each.uses]
        return statistics.median(getattr(use, figure) for use in inside) if inside else None


def windows(runs: int, warm_up: int, length: int) -> tuple[Window, Window]:
    """The first one after the warm-up, and the last one. Raises ``ValueError`` where they would overlap."""
    if warm_up + 2 * length > runs:
        raise ValueError(f"{runs} runs are too few for a warm-up of {warm_up} and two windows of {length}")
    return Window(warm_up, warm_up + length), Window(runs - length, runs + 1)


def services(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(name for each in samples for name in each.uses))


def not_flat(samples: Sequence[Sample], early: Window, late: Window, promised: Sequence[str]) -> list[str]:
    """Services among ``promised`` whose memory was not the same within a fifth, up or down; or that were not sampled."""
    found: list[str] = []
    for name in promised:
        before, after = early.median(samples, name, "rss"), late.median(samples, name, "rss")
        if before is None or after is None:
            found.append(f"{name} was not sampled")
        elif abs(after / before - 1) > FLAT_SHARE:
            found.append(f"{name} went from {before:.1f} to {after:.1f} MiB")
    return found


def memory_table(samples: Sequence[Sample], early: Window, late: Window) -> str:
    """Markdown: medians of both windows, and what a run in between added."""
    between = (late.after + late.before - early.after - early.before) / 2
    lines = [
        f"| service | RSS, MiB: runs {early.after}–{early.before} → {late.after}–{late.before - 1} | PSS | USS | descriptors "
        "| threads | KiB a run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in services(samples):
        figures = {each: (early.median(samples, name, each), late.median(samples, name, each)) for each in _FIGURES}
        (before, after), (uss_before, uss_after) = figures["rss"], figures["uss"]
        change = f" ({after / before - 1:+.1%})" if before and after else ""
        a_run = f"{(uss_after - uss_before) * 1024 / between:+.2f}" if uss_before and uss_after else "–"
        rest = [_both(*figures[each]) for each in _FIGURES[1:]]
        lines.append(f"| {name} | {_both(before, after)}{change} | {' | '.join(rest)} | {a_run} |")
    return "\n".join(lines)


_FIGURES = ("rss", "pss", "uss", "descriptors", "threads")


def _both(*values: float | None) -> str:
    return " → ".join("–" if each is None else f"{each:.0f}" for each in values)


def peaks(samples: Sequence[Sample]) -> dict[str, Use]:
    """The most of every figure, by service; not all of it need have been at the same time."""
    seen = {name: [each.uses[name] for each in samples if name in each.uses] for name in services(samples)}
    return {name: Use(*(max(getattr(use, each.name) for use in uses) for each in fields(Use))) for name, uses in seen.items()}


def percentiles(values: Sequence[float]) -> str:
    """``p50 / p95 / p99 / worst``, in the unit given."""
    if not values:
        return "–"
    ordered = sorted(values)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.0f}" for share in (0.5, 0.95, 0.99, 1))
