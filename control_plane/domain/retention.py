"""How long what finished runs leave is kept. Pure: ages are seconds, the clock is the database's.

Nothing goes unless an operator or an app's record says so: 0 is for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.apps import Retention

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Keep:
    """What one app keeps of its finished runs. Days since a run's end, bytes of output and events together; 0: all, for ever."""

    output_days: int = 0
    events_days: int = 0
    runs_days: int = 0
    bytes: int = 0

    @property
    def output_seconds(self) -> float | None:
        """After this the engines' raw output goes; None: never. Nothing of a run outlives its events, nor these the run."""
        return _seconds(self.output_days, self.events_days, self.runs_days)

    @property
    def events_seconds(self) -> float | None:
        return _seconds(self.events_days, self.runs_days)

    @property
    def runs_seconds(self) -> float | None:
        return _seconds(self.runs_days)

    @property
    def lets_go(self) -> bool:
        """Whether anything ever goes."""
        return self.output_seconds is not None or self.bytes > 0

    def of(self, said: Retention) -> Keep:
        """The same, but for what an app's record says otherwise."""
        return Keep(
            output_days=self.output_days if said.output_days is None else said.output_days,
            events_days=self.events_days if said.events_days is None else said.events_days,
            runs_days=self.runs_days if said.runs_days is None else said.runs_days,
            bytes=self.bytes if said.max_bytes is None else said.max_bytes,
        )


def _seconds(*days: int) -> float | None:
    said = [each for each in days if each > 0]
    return min(said) * DAY_SECONDS if said else None
