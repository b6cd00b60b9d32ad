"""The line of runs that want an executor: how many ask for one at once, and which providers had room nowhere a moment ago.

Both bounds keep the line in order: of runs that ask together any may win, and a run claimed meanwhile would overtake those that
were just refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shared.clock import Monotonic
from shared.contracts.providers import Provider

CLOSED_SECONDS = 0.25
FEW = 32  # the next ones are claimed together, not one by one


@dataclass(slots=True)
class Room:
    """What this replica has just learned; it forgets after ``CLOSED_SECONDS``."""

    monotonic: Monotonic
    on_place: Callable[[], None] = lambda: None
    _asking: set[str] = field(default_factory=set[str])
    _closed: dict[Provider, float] = field(default_factory=dict[Provider, float])

    def asks(self, run_id: str) -> None:
        self._asking.add(run_id)

    def is_placed(self, run_id: str) -> None:
        """It has its place, or gave up for now: the next may ask."""
        if run_id in self._asking:
            self._asking.discard(run_id)
            if len(self._asking) == FEW:
                self.on_place()

    def none_for(self, provider: Provider) -> None:
        """No executor takes its runs now. Said again while it is closed, it changes nothing."""
        self._closed.setdefault(provider, self.monotonic() + CLOSED_SECONDS)

    def closed(self) -> list[Provider]:
        """Whose runs are not to be placed for now: everybody's, while many of ours are on their way to an executor."""
        if len(self._asking) > FEW:
            return list(Provider)
        now = self.monotonic()
        self._closed = {provider: until for provider, until in self._closed.items() if until > now}
        return list(self._closed)

    def next_opening(self) -> float | None:
        """In how many seconds the first of them is worth a try again; None when none is closed."""
        return max(0.0, min(self._closed.values()) - self.monotonic()) if self._closed else None
