"""Finds where a stream of text began anew although nothing says so. Nothing here knows an engine.

Some engines ask a broken stream again and pass its text on a second time, without a word. What comes then are the very same
pieces from the first one on. Pieces that could be such a repetition are held until it shows: when text goes on after a whole
repetition, it was one; when it turns aside, or the answer ends well, it was meant.

Others say so in their log, which is another pipe: on a busy machine the word can come after the pieces it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_PIECES = 2
MIN_CHARS = 12
MAX_RESTARTS = 4


@dataclass(slots=True)
class News:
    """What is to be shown now, and how many beginnings anew were found before it that nothing had told.

    ``is_anew``: the pieces are those of an answer that was begun anew and says something else.
    """

    pieces: list[str] = field(default_factory=list[str])
    restarts: int = 0
    is_anew: bool = False


class Restarts:
    """The pieces of one message, in their order."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._repeated: list[str] = []
        self._told = 0
        self._may_repeat = True

    def told(self) -> bool:
        """The engine says that it begins anew. Whether that is about the pieces that are held: if not, they are still to come."""
        self._told += bool(self._repeated)
        return bool(self._repeated)

    def piece(self, text: str) -> News:
        expected = self._expected()
        if expected is not None and text == expected:
            self._repeated.append(text)
            return self._meant() if self._whole() > MAX_RESTARTS else News()
        if self._repeated and len(self._repeated) % len(self._shown) == 0:
            restarts = self._untold(self._whole())
            self._repeated = []
            self._shown.append(text)
            return News([text], restarts)
        news = self._meant()
        self._shown.append(text)
        news.pieces.append(text)
        return news

    def ended(self, well: bool) -> News:
        """The message is over. ``well``: its model call succeeded, so that what was held was part of the answer."""
        if well or not self._repeated:
            return self._meant()
        restarts = self._untold(-(-len(self._repeated) // len(self._shown)))
        self._repeated = []
        return News(restarts=restarts)

    def _expected(self) -> str | None:
        """The piece a repetition would go on or begin with."""
        if self._repeated:
            return self._shown[len(self._repeated) % len(self._shown)]
        is_long = len(self._shown) >= MIN_PIECES and sum(map(len, self._shown[:MIN_CHARS])) >= MIN_CHARS
        return self._shown[0] if is_long and self._may_repeat else None

    def _whole(self) -> int:
        return len(self._repeated) // len(self._shown) if self._shown else 0

    def _untold(self, restarts: int) -> int:
        told, self._told = self._told, 0
        return max(restarts - told, 0)

    def _meant(self) -> News:
        """What was held is text like any other: this message repeats itself on purpose, or its answer was begun anew."""
        pieces, self._repeated = self._repeated, []
        if self._told:
            last = pieces[(self._told - 1) * len(self._shown) :]
            self._told, self._shown = 0, last
            return News([*last], is_anew=True)
        self._may_repeat = self._may_repeat and not pieces
        self._shown += pieces
        return News(pieces)
