"""What the next prompt of an ACP session says: further messages of people, and what the model must hear after a «no».

An engine takes one prompt at a time. It knows no engine and sends nothing.
"""

from __future__ import annotations

from executor.adapters.base import Step
from executor.adapters.unclaimed import untaken


class NextPrompt:
    """Texts that wait for the end of the prompt that runs."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._from_people = 0

    def __bool__(self) -> bool:
        return bool(self._texts)

    def tell(self, text: str) -> None:
        """A word of ours: without a next prompt nobody misses it."""
        self._texts.append(text)

    def say(self, message: str) -> None:
        """A message that a person was told we have taken."""
        self._texts.append(message)
        self._from_people += 1

    def take(self) -> str:
        """All of them, as one prompt that goes out now."""
        texts, self._texts, self._from_people = self._texts, [], 0
        return "\n\n".join(texts)

    def untold(self, engine: str) -> list[Step]:
        """There is no next prompt."""
        count, self._texts, self._from_people = self._from_people, [], 0
        return untaken(count, engine)
