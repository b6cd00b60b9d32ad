"""How long an attempt may work, how long it may be silent, and until when it must have told its first event.

Time spent waiting for a person is in none of them. Decides nothing about an attempt: it says what has passed.
"""

from __future__ import annotations

from enum import StrEnum

from shared.clock import Monotonic
from shared.contracts.events import Kind, Timeouts

# What an engine prints before, or instead of, telling anything.
NO_EVENTS = frozenset({Kind.RAW_STDOUT, Kind.RAW_STDERR, Kind.DIAGNOSTIC})
SECOND_LOOK_SECONDS = 1.0


class Limit(StrEnum):
    RUN = "run"
    INPUT = "input"
    FIRST_EVENT = "first event"
    IDLE = "idle"


class Limits:
    """Counts from its making, on the monotonic clock; ``pause`` and ``resume`` may be called in any state."""

    def __init__(self, timeouts: Timeouts, now: Monotonic) -> None:
        self._timeouts = timeouts
        self._now = now
        self._active_before = 0.0
        self._active_since: float | None = now()
        self._heard_at = 0.0  # on the active clock
        self._first_by: float | None = timeouts.first_event_ms / 1000  # on the active clock; None: it was told
        self._looked_twice = False

    def active_seconds(self) -> float:
        running = 0.0 if self._active_since is None else self._now() - self._active_since
        return self._active_before + running

    def heard(self) -> None:
        """A byte came, or the engine just got what it waited for."""
        self._heard_at = self.active_seconds()

    def told(self, kind: Kind) -> None:
        """An event of the engine's; raw lines and diagnostics are no sign that its work has begun."""
        if kind not in NO_EVENTS:
            self._first_by = None

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
        return self._timeouts.run_ms / 1000 - self.active_seconds()

    def idle_left(self) -> float:
        """Seconds until the idle timeout, if nothing comes."""
        return self._timeouts.idle_ms / 1000 - (self.active_seconds() - self._heard_at)

    def first_left(self) -> float | None:
        """Seconds until the first event must have been told; None: it was."""
        return None if self._first_by is None else self._first_by - self.active_seconds()

    def next_check(self, at_most: float) -> float:
        """Seconds until a limit can have passed."""
        first = self.first_left()
        return max(min(at_most, self.run_left(), self.idle_left(), at_most if first is None else first), 0)

    def passed(self, *, unread: bool, stuck_seconds: float) -> Limit | None:
        """The limit that has passed. ``unread``: bytes of its own wait for us. ``stuck_seconds``: how long it has not read ours.

        A timer that fires late must not blame the engine for what stands unread in its pipes.
        """
        if unread:
            self.heard()
        if self.run_left() <= 0:
            return Limit.RUN
        if stuck_seconds * 1000 >= self._timeouts.idle_ms:
            return Limit.INPUT
        if self._is_wordless(unread):
            return Limit.FIRST_EVENT
        return Limit.IDLE if self.idle_left() <= 0 else None

    def _is_wordless(self, unread: bool) -> bool:
        """What stands unread at the deadline is read first, once: one that never pauses for breath gets no more than that."""
        left = self.first_left()
        if left is None or left > 0:
            return False
        if unread and not self._looked_twice:
            self._looked_twice, self._first_by = True, self.active_seconds() + SECOND_LOOK_SECONDS
            return False
        return True
