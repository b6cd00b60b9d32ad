"""The line of waiting runs: how a run rises while it waits. Pure numbers; the claim and the shown position use the same."""

from __future__ import annotations

from dataclasses import dataclass

# A run that waits is never taken for more urgent than one that is so many priorities above it.
MOST_RISE = 20.0


@dataclass(frozen=True, slots=True)
class Ageing:
    """A waiting run rises by one priority in ``seconds``, by ``most`` in all."""

    seconds: float = 60.0
    most: float = MOST_RISE
