"""JSON as engines print it: more than strict JSON allows, and never more than can be read.

An engine written in JavaScript prints half a surrogate pair where it cut a text inside one. Nothing here knows a protocol.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

# In order: what else is escaped, a whole pair, half of one.
_ESCAPES = re.compile(
    rb"(?:\\[^u][^\\]*+)++"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


class Decoder(Generic[T]):
    """Reads one shape. Half a surrogate pair is read as U+FFFD, and what is nested too deeply is no such object."""

    def __init__(self, shape: type[T]) -> None:
        self._strict = msgspec.json.Decoder(shape)

    def decode(self, data: bytes | msgspec.Raw | str) -> T:
        """Raises ``msgspec.DecodeError``."""
        try:
            return self._decoded(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            mended = _whole(data.encode() if isinstance(data, str) else bytes(data))
            return self._decoded(mended)

    def _decoded(self, data: bytes | msgspec.Raw | str) -> T:
        try:
            return self._strict.decode(data)
        except RecursionError as error:
            raise msgspec.DecodeError("it is nested too deeply") from error


def _whole(data: bytes) -> bytes:
    """The same bytes, as many of them, without halves of surrogate pairs."""
    return _ESCAPES.sub(lambda escape: escape[0] if escape["half"] is None else rb"\ufffd", data)
