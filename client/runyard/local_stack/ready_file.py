"""The ready file: how a stack is reached and which processes it is, for people's tools and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runyard.local_stack.stack import has_supervisor, write_private

READY = "ready.json"


class ReadyFiles:
    """The same document in every place asked for, replaced whole whenever it changes. It holds keys: mode 0600."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = tuple(dict.fromkeys(place.absolute() for place in places))
        self._written: str | None = None

    def show(self, document: Mapping[str, Any]) -> None:
        """Writes only what is new."""
        text = json.dumps(document, indent=2) + "\n"
        if text == self._written:
            return
        for place in self._places:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_private(place, text)
        self._written = text

    def remove(self) -> None:
        """A stack that is not up has none."""
        for place in self._places:
            place.unlink(missing_ok=True)
        self._written = None


def read_ready_file(file: Path) -> dict[str, Any] | None:
    """The document, or None when there is no whole one."""
    try:
        document: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return document


def stack_up_in(state_dir: Path) -> dict[str, Any] | None:
    """The document of the stack that is up there. One that a killed supervisor left names a port that may be a stranger's."""
    return read_ready_file(state_dir / READY) if has_supervisor(state_dir) else None
