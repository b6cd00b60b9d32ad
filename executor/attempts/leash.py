"""The time-limited leave of an attempt to go on. It counts from the clock reading its driver quotes, never from the arrival
of the call, so that nothing delayed on the way revives an attempt. Pure: the clock is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.provider_runs import LeashQuote

LEASH_MS = 12_000


@dataclass(slots=True)
class Leash:
    """``until_ms``: on the executor's monotonic clock, milliseconds."""

    until_ms: int

    @classmethod
    def starting(cls, quote: LeashQuote | None, instance: str, now_ms: int) -> Leash | None:
        """None: the quote is refused, or has lapsed already. Without one the leash starts now."""
        if quote is None:
            return cls(now_ms + LEASH_MS)
        leash = cls(quote.clock_ms + LEASH_MS)
        return leash if is_ours(quote, instance, now_ms) and not leash.has_lapsed(now_ms) else None

    def renew(self, quote: LeashQuote) -> None:
        """Longer or unchanged, never shorter. The quote must be ours."""
        self.until_ms = max(self.until_ms, quote.clock_ms + LEASH_MS)

    def has_lapsed(self, now_ms: int) -> bool:
        return now_ms >= self.until_ms


def is_ours(quote: LeashQuote, instance: str, now_ms: int) -> bool:
    """A reading of this very clock: from this life of the executor, and not from the future."""
    return quote.instance == instance and quote.clock_ms <= now_ms
