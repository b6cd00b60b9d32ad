"""What is said in the name of who did not answer in time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.domain.expiry import NOBODY, declared_reply
from shared.contracts.interactions import Decision, Interaction, InteractionStatus, InteractionType, OnExpiry, Reply

TWO = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "size": {"type": "string", "maxLength": 20}},
    "required": ["colour", "size"],
}


def question(kind: InteractionType = InteractionType.QUESTION, **changes: Any) -> Interaction:
    base: dict[str, Any] = {
        "run_id": "run_1", "question_id": "q1-1", "attempt": 1, "status": InteractionStatus.PENDING, "type": kind,
        "prompt": "which?", "created_at": datetime(2026, 1, 1, tzinfo=UTC), "on_expiry": OnExpiry.ANSWER, "expiry_answer": "blue",
    }  # fmt: skip
    return Interaction(**{**base, **changes})


def test_a_question_is_answered_with_the_declared_text() -> None:
    assert declared_reply(question()) == Reply(answer="blue")


@pytest.mark.parametrize("kind", [InteractionType.PERMISSION, InteractionType.PLAN])
@pytest.mark.parametrize("on_expiry", [OnExpiry.DENY, OnExpiry.ANSWER])
def test_nothing_is_granted_in_an_absent_persons_name(kind: InteractionType, on_expiry: OnExpiry) -> None:
    asked = question(kind, on_expiry=on_expiry, expiry_answer="accept")
    assert declared_reply(asked) == Reply(decision=Decision.DECLINE, message=NOBODY)


@pytest.mark.parametrize("kind", list(InteractionType))
def test_where_the_run_is_to_fail_nothing_is_said(kind: InteractionType) -> None:
    assert declared_reply(question(kind, on_expiry=OnExpiry.FAIL)) is None


def test_a_question_cannot_be_declined() -> None:
    assert declared_reply(question(on_expiry=OnExpiry.DENY, expiry_answer=None)) is None


def test_one_text_answers_each_of_several_questions() -> None:
    assert declared_reply(question(schema=TWO)) == Reply(answer={"colour": "blue", "size": "blue"})


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": ["string", "array"]}, {"enum": ["red", "blue"]}, {}])
def test_a_text_that_is_asked_for_stays_one(schema: dict[str, Any]) -> None:
    assert declared_reply(question(schema=schema)) == Reply(answer="blue")


@pytest.mark.parametrize("schema", [
    {"enum": ["red", "green"]}, {"type": "integer"}, {"type": "object", "properties": {"n": {"type": "integer"}}},
    {"type": "object", "properties": {"colour": {"enum": ["red"]}}}, {"type": "object", "properties": [], "required": ["colour"]},
    {"type": "no such type"},
])  # fmt: skip
def test_a_text_that_does_not_fit_is_not_said(schema: dict[str, Any]) -> None:
    assert declared_reply(question(schema=schema)) is None


def test_nobody_is_held_up_by_a_schema_that_asks_for_itself_again_and_again() -> None:
    steps = {f"a{step}": {"allOf": [{"$ref": f"#/$defs/a{step + 1}"}] * 2} for step in range(40)}
    assert declared_reply(question(schema={"$ref": "#/$defs/a0", "$defs": {**steps, "a40": {}}})) is None
