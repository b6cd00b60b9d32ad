"""Providers that had room nowhere a moment ago. Claiming their runs meanwhile would let a young run overtake those that wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.clock import Monotonic
from shared.contracts.providers import Provider

CLOSED_SECONDS = 0.25


@dataclass(slots=True)
class Room:
    """What this replica has just learned; it forgets after ``CLOSED_SECONDS``."""

    monotonic: Monotonic
    _closed: dict[Provider, float] = field(default_factory=dict[Provider, float])

    def none_for(self, provider: Provider) -> None:
        """No executor takes its runs now. Said again while it is closed, it changes nothing."""
        self._closed.setdefault(provider, self.monotonic() + CLOSED_SECONDS)

    def closed(self) -> list[Provider]:
        now = self.monotonic()
        self._closed = {provider: until for provider, until in self._closed.items() if until > now}
        return list(self._closed)

    def next_opening(self) -> float | None:
        """In how many seconds the first of them is worth a try again; None when none is closed."""
        return max(0.0, min(self._closed.values()) - self.monotonic()) if self._closed else None
