"""What a person types at a question becomes exactly one reply, or none."""

from __future__ import annotations

import pytest

from runyard.cli.replies import parse_reply
from runyard.cli.show import brief, clean

PERMISSION = {"type": "permission", "tool": {"name": "shell", "input": {"command": "rm -r x"}}}
CHOICE = {"type": "question", "options": [{"label": "red"}, {"label": "blue"}]}
OPEN = {"type": "question", "options": []}


@pytest.mark.parametrize(
    ("question", "typed", "reply"),
    [
        (PERMISSION, "y\n", {"decision": "accept"}),
        (PERMISSION, " Always ", {"decision": "acceptForSession"}),
        (PERMISSION, "n use the other file\n", {"decision": "decline", "message": "use the other file"}),
        (PERMISSION, "s", {"decision": "declineAndStop"}),
        (PERMISSION, "perhaps", None),
        (PERMISSION, "\n", None),
        ({"type": "plan"}, "yes", {"decision": "accept"}),
        (CHOICE, "2\n", {"answer": "blue"}),
        (CHOICE, "3", {"answer": "3"}),
        (CHOICE, "green, please", {"answer": "green, please"}),
        (OPEN, "2", {"answer": "2"}),
        (OPEN, "  ", None),
    ],
)
def test_a_typed_line_is_read_as_meant(question: dict[str, object], typed: str, reply: dict[str, str] | None) -> None:
    assert parse_reply(question, typed) == reply


def test_an_engine_cannot_reach_the_terminal_with_control_characters() -> None:
    assert clean("a\x1b[2Jb\x9b31mc\r\nd\te\x07") == "a[2Jb31mc\nd\te"


def test_what_is_shown_in_one_line_stays_one_line() -> None:
    assert brief("a\nb\n" + "x" * 500).startswith("a b x")
    assert len(brief("x" * 500)) == 160
    assert brief({"command": "ls"}) == '{"command": "ls"}'
