"""Places in lists and logs, as callers name them: opaque cursors of lists, dense cursors of a run."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec

from shared.errors import ErrorCode, FieldError, RunyardError

NO_PLACE = {400: "A cursor that names no place"}  # what operations that take one say of it
_PLACE = msgspec.json.Decoder(list[str])


def bad_cursor(reason: str) -> RunyardError:
    """A cursor that names no place: 400, unlike a field of the wrong type."""
    return RunyardError(ErrorCode.INVALID_REQUEST, f"cursor: {reason}", (FieldError("cursor", reason),), status=400)


def run_cursor(text: str | None) -> int | None:
    """A position in a run's log from a header or a query. Raises ``invalid_request`` (400)."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise bad_cursor("a whole number, 0 or more")
    return int(text)


def encode_position(at: datetime, *ids: str) -> str:
    """An opaque place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode([at.isoformat(), *ids])).decode().rstrip("=")


def decode_position(cursor: str | None, parts: int) -> Any:
    """The place a cursor names: (instant, ids…), or None. Raises ``invalid_request`` (400) for one we did not give."""
    if cursor is None:
        return None
    try:
        place = _PLACE.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        at = datetime.fromisoformat(place[0])
    except (ValueError, IndexError, binascii.Error, msgspec.DecodeError):
        raise bad_cursor("not a cursor of this list") from None
    if at.tzinfo is None or len(place) != parts or any("\0" in each for each in place):
        raise bad_cursor("not a cursor of this list")
    return (at, *place[1:])
