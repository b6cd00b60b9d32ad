"""What a person types at a question becomes exactly one reply, or none."""

from __future__ import annotations

import pytest

from runyard.api import Event
from runyard.cli.replies import parse_reply
from runyard.cli.show import Live, brief, clean

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
        (PERMISSION, "Y but not again\n", {"decision": "accept", "message": "but not again"}),
        (PERMISSION, "A safer way, please", None),
        (PERMISSION, "Always ask me first", None),
        (PERMISSION, "Accept nothing of it", None),
        (PERMISSION, "yes but only the first", None),
        (PERMISSION, "No problem, go on", None),
        (PERMISSION, "Stop asking", None),
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


def test_what_a_sub_agent_says_and_does_is_shown_aside_and_never_as_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    live, helpers = Live("run_1"), {"parentToolId": "t1"}
    said = [
        ("message.delta", {"messageId": "m1", "text": "the "}),
        ("message.delta", {"messageId": "h1", "text": "look"} | helpers),
        ("tool.started", {"toolId": "t2", "name": "shell", "input": "ls"} | helpers),
        ("message.completed", {"messageId": "h1", "text": "look at this", "final": False} | helpers),
        ("message.delta", {"messageId": "m1", "text": "answer"}),
        ("message.completed", {"messageId": "m1", "text": "the answer", "final": True}),
    ]
    for cursor, (kind, data) in enumerate(said, 1):
        live.event(Event(cursor, kind, "run_1", 1, "", data, ""))
    shown = capsys.readouterr()
    assert shown.out.replace("\n", "") == "the answer"
    assert [line.strip() for line in shown.err.splitlines()] == ["│ ▸ shell ls", "│ look at this"]


def test_a_message_of_a_later_attempt_is_shown_although_its_id_was_used_before(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live("run_1")
    live.event(Event(1, "message.delta", "run_1", 1, "", {"messageId": "m1", "text": "One"}, ""))
    live.event(Event(2, "message.completed", "run_1", 1, "", {"messageId": "m1", "text": "One"}, ""))
    live.event(Event(3, "message.completed", "run_1", 2, "", {"messageId": "m1", "text": "Two"}, ""))
    live.event(Event(4, "message.delta", "run_1", 2, "", {"messageId": "m2", "text": "Half"}, ""))
    live.event(Event(5, "message.delta", "run_1", 3, "", {"messageId": "m2", "text": "Whole"}, ""))
    live.event(Event(6, "message.completed", "run_1", 3, "", {"messageId": "m2", "text": "Whole"}, ""))
    assert capsys.readouterr().out == "One\nTwo\nHalf\nWhole\n"


def test_nothing_of_an_event_reaches_the_terminal_with_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    live, evil = Live("run_1"), "a\x1b[2Jb"
    said = [
        ("tool.started", {"name": evil, "input": evil}),
        ("interaction.requested", {"questionId": evil, "type": "permission", "tool": {"name": evil, "input": evil}}),
        ("interaction.requested", {"questionId": "q2", "type": "question", "prompt": evil, "options": [{"label": evil}]}),
        ("interaction.resolved", {"questionId": evil, "how": evil, "answer": {"answer": evil}}),
        ("plan.updated", {"items": [{"status": evil, "text": evil}]}),
        ("run.status", {"status": "error", "errorCode": evil, "errorMessage": evil, "hint": evil}),
    ]
    for cursor, (kind, data) in enumerate(said, 1):
        live.event(Event(cursor, kind, "run_1", 1, "", data, ""))
    live.note(evil)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert shown.err.count("a[2Jb") >= 12
