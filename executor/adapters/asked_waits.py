"""How long a model asked to be left alone, as far as an engine passes it on: as a number of its own, or in the model's words.

What an engine would have waited by itself is no word of the model's, and is never taken for one.
"""

from __future__ import annotations

import math
import re

from shared.errors import ErrorCode

LONGEST_MS = 24 * 3600 * 1000
# What passes by waiting. A quota or a key does not, whatever is said with it.
PASSING = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.MODEL_UNAVAILABLE})
_ASKED = re.compile(
    r"\b(?:try again in|retry after|retry in)((?:\s*\d+(?:\.\d+)?\s*(?:ms|s|seconds?|m|minutes?|h|hours?)(?![a-z]))+)", re.I
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", re.I)
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def asked_wait(code: ErrorCode, said: str, told_ms: int | None = None) -> int | None:
    """Milliseconds the model asked for with a failure that passes: in the words of the failure, else as the engine ``told``."""
    if code not in PASSING:
        return None
    in_words = _in_words(said)
    asked = told_ms if in_words is None else in_words
    return None if asked is None else min(max(asked, 0), LONGEST_MS)


def _in_words(said: str) -> int | None:
    """«try again in 4.5s», «Suggested retry after 1m30s»."""
    found = _ASKED.search(said)
    if found is None:
        return None
    asked = sum(float(number) * _MS[unit.lower()] for number, unit in _PART.findall(found[1]))
    return math.ceil(min(asked, LONGEST_MS))  # so many digits are more than a number of milliseconds holds
