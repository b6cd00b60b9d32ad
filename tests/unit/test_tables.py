"""Lists of runs and questions: what stands in them is shown as it is, and an id whole, however narrow the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from runyard.cli.tables import question_table, run_table

RUN = {
    "runId": "run_01a1fc687cfc72c99418f878d9680a64",
    "status": "waiting_user",
    "provider": "codex-app-server",
    "model": "gpt-5.2-codex",
    "createdAt": "2026-01-01T00:00:00.123456Z",
    "durationMs": 123_456,
}
QUESTION = {
    "runId": RUN["runId"],
    "questionId": "q1-1",
    "type": "permission",
    "prompt": "May it delete every file below the folder it works in?",
    "expiresAt": "2026-01-02T00:00:00.123456Z",
}
TABLES = {"runs": lambda width: run_table([RUN], width), "questions": lambda width: question_table([QUESTION], width)}


def shown(table: Table, width: int | None) -> str:
    written = io.StringIO()
    Console(file=written, width=width or 10_000, soft_wrap=True, highlight=False).print(table)
    return written.getvalue()


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 100, 120])
@pytest.mark.parametrize("kind", TABLES)
def test_at_any_width_what_is_shown_of_a_list_is_shown_whole(kind: str, width: int) -> None:
    text = shown(TABLES[kind](width), width)
    whole = {*map(str, RUN.values()), *map(str, QUESTION.values()), "2026-01-01T00:00:00", "2026-01-02T00:00:00", "123.5 s"}
    names = {"run", "status", "provider", "model", "created", "took", "question", "type", "asks", "expires"}
    assert str(RUN["runId"]) in text
    assert "…" not in text
    first = text.splitlines()[1].split("  ")
    assert {cell.strip() for cell in first if cell.strip() and not cell.startswith("May it")} <= whole | names


@pytest.mark.parametrize("kind", TABLES)
def test_a_list_is_no_wider_than_a_terminal_that_has_room_for_an_id(kind: str) -> None:
    for width in range(len(str(RUN["runId"])), 200):
        assert max(len(line) for line in shown(TABLES[kind](width), width).splitlines()) <= width


def test_a_list_for_a_program_has_every_column_and_one_line_a_row() -> None:
    header, row = shown(run_table([RUN], None), None).splitlines()
    assert header.split() == ["run", "status", "provider", "created", "model", "took"]
    assert row.split() == [RUN["runId"], "waiting_user", "codex-app-server", "2026-01-01T00:00:00", "gpt-5.2-codex", "123.5", "s"]
    header, row = shown(question_table([QUESTION], None), None).splitlines()
    assert header.split() == ["run", "question", "type", "asks", "expires"]
    assert str(QUESTION["prompt"]) in row
    assert row.rstrip().endswith("2026-01-02T00:00:00")


@pytest.mark.parametrize("name", ["x[/b]", "qwen[latest]", "[red]x", "a\x1b[2Jb", ":smile:"])
@pytest.mark.parametrize("field", ["runId", "status", "provider", "model", "createdAt"])
def test_nothing_that_stands_in_a_run_is_read_as_markup(field: str, name: str) -> None:
    assert name.replace("\x1b", "") in shown(run_table([RUN | {field: name}], None), None)


@pytest.mark.parametrize("name", ["x[/b]", "qwen[latest]", "[red]x", ":smile:"])
@pytest.mark.parametrize("field", ["runId", "questionId", "type", "prompt", "expiresAt"])
def test_nothing_that_stands_in_a_question_is_read_as_markup(field: str, name: str) -> None:
    assert name in shown(question_table([QUESTION | {field: name}], None), None)


def test_an_empty_list_is_a_heading() -> None:
    assert shown(run_table([], 80), 80).split() == ["run", "status", "provider", "created", "model", "took"]
