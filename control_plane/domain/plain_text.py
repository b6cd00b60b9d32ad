"""What no text from outside may hold: a NUL, which Postgres keeps in no text and no program is given. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel

from shared.errors import invalid

_MAX_NAME = 80  # of a field, in an answer: its name may be the caller's own


def refuse_nul(request: BaseModel) -> None:
    """Raises ``invalid_request`` that names the first field with a NUL in it, or in the name of a member of it."""
    where = _nul_in(request.model_dump(by_alias=True), "")
    if where is not None:
        raise invalid(where[:_MAX_NAME] or "body", "a NUL character can be neither stored nor passed on")


def _nul_in(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return where if "\0" in value else None
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inside = cast(dict[str, Any], value).items()
    elif isinstance(value, list):
        inside = enumerate(cast(list[Any], value))
    for name, each in inside:
        if isinstance(name, str) and "\0" in name:
            return where
        if (found := _nul_in(each, f"{where}.{name}" if where else str(name))) is not None:
            return found
    return None
