"""Named queries: SQL is SQL, in ``sql/<aggregate>.sql``, one ``-- name:`` a statement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("sql")
LIST_BYTES = 8 * 1024 * 1024  # of documents in a page of a list; one more row may begin below it
_NAME = re.compile(r"^-- name: (\w+)$", re.M)


@cache
def load(aggregate: str) -> Mapping[str, str]:
    """The statements of ``sql/<aggregate>.sql`` by name."""
    parts = _NAME.split((FOLDER / f"{aggregate}.sql").read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def names() -> list[tuple[str, str]]:
    """Every (aggregate, name) there is."""
    return [(file.stem, name) for file in sorted(FOLDER.glob("*.sql")) for name in load(file.stem)]
