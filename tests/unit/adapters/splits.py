"""Where to cut a stream so that every kind of border is met once, and what a conversation makes of the pieces."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from executor.adapters.base import STDOUT, Conversation, Step

EVERY_CUT_BYTES = 8192
SEEDED = 200


def cuts(data: bytes) -> Iterator[int]:
    """Every byte up to 8 KiB; beyond: beside newlines, inside characters, and 200 seeded places."""
    if len(data) <= EVERY_CUT_BYTES:
        yield from range(len(data) + 1)
        return
    newlines = [at for at, byte in enumerate(data) if byte == 0x0A]
    inside = [at for at, byte in enumerate(data) if byte & 0xC0 == 0x80][:SEEDED]
    near = {at + beside for at in newlines for beside in (-2, -1, 0, 1, 2)}
    some = random.Random(len(data)).sample(range(len(data)), SEEDED)
    yield from sorted(at for at in {*near, *inside, *some} if 0 <= at <= len(data))


def steps_of(conversation: Conversation, pieces: Iterable[bytes]) -> list[Step]:
    steps = [step for piece in pieces for step in conversation.feed(STDOUT, piece)]
    return steps + conversation.end_of(STDOUT)
