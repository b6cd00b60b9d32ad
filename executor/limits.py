"""How long an attempt may work and how long it may be silent. Time spent waiting for a person is in neither."""

from __future__ import annotations

from shared.clock import Monotonic
from shared.contracts.events import Timeouts


class Limits:
    """Counts from its making, on the monotonic clock; ``pause`` and ``resume`` may be called in any state."""

    def __init__(self, timeouts: Timeouts, now: Monotonic) -> None:
        self._run_seconds = timeouts.run_ms / 1000
        self._idle_seconds = timeouts.idle_ms / 1000
        self._now = now
        self._active_before = 0.0
        self._active_since: float | None = now()
        self._heard_at = 0.0  # on the active clock

    def active_seconds(self) -> float:
        running = 0.0 if self._active_since is None else self._now() - self._active_since
        return self._active_before + running

    def heard(self) -> None:
        """A byte came, or the engine just got what it waited for."""
        self._heard_at = self.active_seconds()

    def pause(self) -> None:
        self._active_before, self._active_since = self.active_seconds(), None

    def resume(self) -> None:
        if self._active_since is None:
            self._active_since = self._now()
            self.heard()

    @property
    def is_paused(self) -> bool:
        return self._active_since is None

    def run_left(self) -> float:
        """Seconds until the run timeout, if nothing pauses it."""
        return self._run_seconds - self.active_seconds()

    def idle_left(self) -> float:
        """Seconds until the idle timeout, if nothing comes."""
        return self._idle_seconds - (self.active_seconds() - self._heard_at)
