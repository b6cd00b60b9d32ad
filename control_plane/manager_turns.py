"""Whose turn it is among the managers, all of which will do: each call goes to the next one, so that all of them carry the load.

Who did not hear a call, or did not answer it, is left out for a while; then one call tries it, and when it answers the others
follow. It knows no connection: only their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.clock import Monotonic

LEFT_OUT_SECONDS = 5.0


class ManagerTurns:
    def __init__(self, count: int, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._next = 0
        self._out_until: list[float | None] = [None] * count

    def __iter__(self) -> Iterator[int]:
        """Every manager once, the best first."""
        now, count = self._monotonic(), len(self._out_until)
        in_turn = [(self._next + step) % count for step in range(count)]
        first, *others = sorted(in_turn, key=lambda each: max(self._out_until[each] or now, now))
        self._next = (first + 1) % count
        if self._out_until[first] is not None:  # this call tries it; it alone
            self.failed(first)
        return iter((first, *others))

    def failed(self, manager: int) -> None:
        """It did not hear us, or may hang: the repeat goes to another."""
        self._out_until[manager] = self._monotonic() + LEFT_OUT_SECONDS

    def answered(self, manager: int) -> None:
        self._out_until[manager] = None
