"""Answers under a schema: what fits is the JSON it is, everything else is told with its place, and nothing is looked up."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters.base import Outcome
from executor.attempts.answers import as_it_is, fit_for
from shared.contracts.events import AttemptOutcome, Usage
from shared.errors import ErrorCode, RunyardError
from shared.schemas import Schema

ANSWER = {
    "type": "object", "required": ["answer"], "additionalProperties": False,
    "properties": {"answer": {"$ref": "#/$defs/number"}, "why": {"type": "array", "items": {"type": "string"}}},
    "$defs": {"number": {"type": "integer", "minimum": 1}},
}  # fmt: skip
USAGE = Usage(input_tokens=1, output_tokens=2)


def success(result: Any) -> Outcome:
    return Outcome(AttemptOutcome.SUCCESS, result=result, usage=USAGE)


@pytest.mark.parametrize("said", ['{"answer": 42}', {"answer": 42}, ' {"answer":42,"why":["so"]}\n'])
def test_what_fits_is_the_json_it_is(said: Any) -> None:
    outcome = fit_for(ANSWER)(success(said))
    assert outcome.outcome is AttemptOutcome.SUCCESS
    assert outcome.result["answer"] == 42
    assert outcome.usage == USAGE


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("forty-two", "not JSON"),
        ("", "not JSON"),
        ("half a pair: \ud83d", "not JSON"),
        ('{"answer": "42"}', 'answer: "42" is not of type "integer"'),
        ('{"answer": 0}', "answer: 0 is less than the minimum of 1"),
        ('{"answer": 1, "why": ["so", 3]}', 'why/1: 3 is not of type "string"'),
        ("[42]", "is not of type"),
        ("{}", '"answer" is a required property'),
        ('{"answer": 1, "more": 2}', "more"),
        (None, "is not of type"),
    ],
)
def test_what_does_not_fit_is_invalid_with_its_place_and_the_answer_as_it_came(said: Any, why: str) -> None:
    outcome = fit_for(ANSWER)(success(said))
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.OUTPUT_INVALID)
    assert why in (outcome.error_message or "")
    assert outcome.result == said
    assert outcome.usage == USAGE


def test_a_failure_stays_the_failure_it_is() -> None:
    failed = Outcome(AttemptOutcome.ERROR, ErrorCode.AUTH_FAILED, "no", result="partial")
    assert fit_for(ANSWER)(failed) is failed


def test_without_a_schema_everything_is_as_it_is() -> None:
    assert fit_for(None) is as_it_is
    assert as_it_is(success("text")).result == "text"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": "string", "pattern": "(a"},
        {"minimum": "one"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
    ],
)
def test_a_schema_that_is_none_or_points_elsewhere_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Schema(schema)
    with pytest.raises(RunyardError, match="outputSchema"):
        fit_for(schema)


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    assert Schema({"type": "string", "pattern": "^(a+)+$"}).misfit("a" * 50_000 + "!") is not None
