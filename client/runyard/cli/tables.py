"""Lists as tables. What stands in a cell is data: never read as markup, never a control character; what it names is never cut.

A terminal that is too narrow gets fewer columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from runyard.cli.show import STATUS_STYLES, asks, brief

_GAP = 2
_WRAPS_FROM = {"model": 16, "asks": 20}  # these may take several lines, of that width at least


def run_table(runs: Sequence[Mapping[str, Any]], width: int | None) -> Table:
    """``width``: of the terminal; None: as wide as it needs."""
    return _table(("run", "status", "provider", "created", "model", "took"), [_run(run) for run in runs], width)


def question_table(questions: Sequence[Mapping[str, Any]], width: int | None) -> Table:
    """``width``: of the terminal; None: as wide as it needs."""
    return _table(("run", "question", "type", "asks", "expires"), [_question(each) for each in questions], width)


def _run(run: Mapping[str, Any]) -> list[Text]:
    status = str(run.get("status"))
    took = "" if run.get("durationMs") is None else f"{run['durationMs'] / 1000:.1f} s"
    rest = (run.get("provider"), _moment(run.get("createdAt")), run.get("model"), took)
    return [_cell(run.get("runId")), Text(brief(status), STATUS_STYLES.get(status, "")), *map(_cell, rest)]


def _question(question: Mapping[str, Any]) -> list[Text]:
    named = (question.get(name) for name in ("runId", "questionId", "type"))
    return [*map(_cell, named), _cell(asks(question)), _cell(_moment(question.get("expiresAt")))]


def _cell(value: Any) -> Text:
    return Text(brief(value or ""))


def _moment(at: str | None) -> str:
    return (at or "")[: len("2026-01-01T00:00:00")]


def _table(names: Sequence[str], rows: Sequence[Sequence[Text]], width: int | None) -> Table:
    """Its columns stand in the order of their weight: one that does not fit beside those before it is left out."""
    table = Table(box=None, pad_edge=False)
    shown: list[Sequence[Text]] = []
    taken = 0
    for number, name in enumerate(names):
        cells = [row[number] for row in rows]
        longest = max(cell_len(name), *(cell.cell_len for cell in cells), 0)
        least = min(longest, _WRAPS_FROM.get(name, longest))
        gap = _GAP if shown else 0
        if shown and width is not None and taken + gap + least > width:
            continue
        table.add_column(name, no_wrap=name not in _WRAPS_FROM, overflow="fold", min_width=least)
        shown.append(cells)
        taken += gap + least
    for row in zip(*shown, strict=True):
        table.add_row(*row)
    return table
