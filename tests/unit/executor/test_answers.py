"""Answers under a schema: what fits is the JSON it is, everything else is told with its place, and nothing is looked up."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import pytest

from executor.adapters.base import Outcome
from executor.attempts import answers
from executor.attempts.answers import Judging, as_it_is
from executor.processes.process_tree import Forest
from shared.contracts.events import AttemptOutcome, Usage
from shared.errors import ErrorCode, RunyardError
from shared.schemas import MAX_PATTERNS, MAX_SCHEMA_BYTES, Schema
from tests.e2e.kit import processes_with
from tests.service.executor.kit import until
from tests.unit.executor.trees import OUR_MARK

ANSWER = {
    "type": "object", "required": ["answer"], "additionalProperties": False,
    "properties": {"answer": {"$ref": "#/$defs/number"}, "why": {"type": "array", "items": {"type": "string"}}},
    "$defs": {"number": {"type": "integer", "minimum": 1}},
}  # fmt: skip
USAGE = Usage(input_tokens=1, output_tokens=2)


def success(result: Any) -> Outcome:
    return Outcome(AttemptOutcome.SUCCESS, result=result, usage=USAGE)


@pytest.fixture
def judging(forest: Forest) -> Judging:
    return Judging(forest, OUR_MARK)


def fork_of(depth: int) -> dict[str, Any]:
    """Each definition asks for the next one twice: 2 ** depth questions, in 70 bytes a step."""
    steps = {f"a{step}": {"allOf": [{"$ref": f"#/$defs/a{step + 1}"}] * 2} for step in range(depth)}
    return {"$ref": "#/$defs/a0", "$defs": {**steps, f"a{depth}": {"type": "object"}}}


@pytest.mark.parametrize("said", ['{"answer": 42}', {"answer": 42}, ' {"answer":42,"why":["so"]}\n'])
async def test_what_fits_is_the_json_it_is(judging: Judging, said: Any) -> None:
    outcome = await judging.fit_for(ANSWER, "run.1")(success(said), asyncio.Event())
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
async def test_what_does_not_fit_is_invalid_with_its_place_and_the_answer_as_it_came(
    judging: Judging, said: Any, why: str
) -> None:
    outcome = await judging.fit_for(ANSWER, "run.1")(success(said), asyncio.Event())
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.OUTPUT_INVALID)
    assert why in (outcome.error_message or "")
    assert outcome.result == said
    assert outcome.usage == USAGE


async def test_a_failure_stays_the_failure_it_is(judging: Judging) -> None:
    failed = Outcome(AttemptOutcome.ERROR, ErrorCode.AUTH_FAILED, "no", result="partial")
    assert await judging.fit_for(ANSWER, "run.1")(failed, asyncio.Event()) is failed


async def test_without_a_schema_everything_is_as_it_is(judging: Judging) -> None:
    assert judging.fit_for(None, "run.1") is as_it_is
    assert (await as_it_is(success("text"), asyncio.Event())).result == "text"


async def test_a_schema_that_takes_for_ever_is_judged_by_for_a_while_only(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "JUDGE_SECONDS", 0.5)
    outcome = await judging.fit_for(fork_of(40), "forked.1")(success("{}"), asyncio.Event())
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, ErrorCode.OUTPUT_INVALID)
    assert "could not be held against its schema within 0.5 s" in (outcome.error_message or "")
    assert outcome.result == "{}"
    assert processes_with("RUNYARD_RUN", "judge.forked.1") == []


async def test_a_judge_has_so_much_work_and_not_a_second_more(judging: Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    short = "from executor.attempts import judge; judge.MAX_CPU_SECONDS = 1; judge.main()"
    monkeypatch.setattr(answers, "_JUDGE", (sys.executable, "-P", "-s", "-c", short))
    outcome = await judging.fit_for(fork_of(40), "worked.1")(success("{}"), asyncio.Event())
    assert (outcome.error_code, outcome.result) == (ErrorCode.OUTPUT_INVALID, "{}")
    assert outcome.error_message == "the answer could not be held against its schema within 5 s of work"
    assert processes_with("RUNYARD_RUN", "judge.worked.1") == []


async def test_a_judge_has_as_much_claim_to_the_processor_as_the_executor(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = "import os, sys; sys.stdin.read(); print(f'\"{os.getpriority(os.PRIO_PROCESS, 0)}\"')"
    monkeypatch.setattr(answers, "_JUDGE", (sys.executable, "-c", claim))
    outcome = await judging.fit_for({}, "run.1")(success("{}"), asyncio.Event())
    assert outcome.error_message == f"the answer does not fit its schema: {os.getpriority(os.PRIO_PROCESS, 0)}"


async def test_who_is_in_a_hurry_waits_for_no_judge_and_leaves_none(judging: Judging) -> None:
    hurry = asyncio.Event()
    judged = asyncio.ensure_future(judging.fit_for(fork_of(40), "hurried.1")(success("{}"), hurry))
    await until(lambda: processes_with("RUNYARD_RUN", "judge.hurried.1"))
    began = time.monotonic()
    hurry.set()
    assert (await judged).outcome is AttemptOutcome.ERROR
    assert time.monotonic() - began < answers.JUDGE_SECONDS / 2
    assert processes_with("RUNYARD_RUN", "judge.hurried.1") == []


async def test_who_is_in_a_hurry_already_starts_no_judge(judging: Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(judging.forest, "plant", lambda *given: started.append(given))
    hurry = asyncio.Event()
    hurry.set()
    outcome = await judging.fit_for(ANSWER, "run.1")(success('{"answer": 42}'), hurry)
    assert (outcome.error_code, outcome.error_message) == (ErrorCode.OUTPUT_INVALID, answers.NOT_JUDGED)
    assert started == []


async def test_an_attempt_that_is_given_up_leaves_no_judge(judging: Judging) -> None:
    judged = asyncio.ensure_future(judging.fit_for(fork_of(40), "given_up.1")(success("{}"), asyncio.Event()))
    await until(lambda: processes_with("RUNYARD_RUN", "judge.given_up.1"))
    judged.cancel()
    with pytest.raises(asyncio.CancelledError):
        await judged
    assert processes_with("RUNYARD_RUN", "judge.given_up.1") == []


async def test_who_hurries_while_a_judge_is_taken_down_leaves_no_tree_of_it(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ending, hurry, forgotten = judging.forest.end_surely, asyncio.Event(), asyncio.Event(), []

    async def slow(*given: Any) -> None:
        ending.set()
        await hurry.wait()
        await real(*given)

    monkeypatch.setattr(judging.forest, "end_surely", slow)
    monkeypatch.setattr(judging.forest, "forget", forgotten.append)
    judged = asyncio.ensure_future(judging.fit_for(ANSWER, "run.1")(success('{"answer": 42}'), hurry))
    async with asyncio.timeout(20):
        await ending.wait()
        hurry.set()
        await judged
    assert len(forgotten) == 1


async def test_an_answer_for_which_no_judge_can_be_started_is_no_success(
    judging: Judging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_given: object) -> object:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(judging.forest, "plant", refused)
    outcome = await judging.fit_for(ANSWER, "run.1")(success('{"answer": 42}'), asyncio.Event())
    assert outcome.error_code is ErrorCode.OUTPUT_INVALID
    assert "Resource temporarily unavailable" in (outcome.error_message or "")


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
async def test_a_schema_that_is_none_or_points_elsewhere_is_refused(judging: Judging, schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Schema(schema)
    with pytest.raises(RunyardError, match="outputSchema"):
        judging.fit_for(schema, "run.1")


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    assert Schema({"type": "string", "pattern": "^(a+)+$"}).misfit("a" * 50_000 + "!") is not None


@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "unevaluatedItems"])
def test_a_schema_whose_compiling_doubles_with_every_reference_is_refused_before_it_costs_anything(keyword: str) -> None:
    def step(number: int) -> dict[str, Any]:
        following = {"$ref": f"#/$defs/a{number + 1}"}
        return {"if": following, "then": following, "else": following, keyword: False}

    began = time.process_time()
    with pytest.raises(ValueError, match=keyword):
        Schema({"$ref": "#/$defs/a0", "$defs": {**{f"a{each}": step(each) for each in range(9)}, "a9": {"type": "object"}}})
    assert time.process_time() - began < 0.1
    assert Schema({"properties": {"a": {"type": "integer"}}, keyword: False}).misfit({"a": 1}) is None
    assert Schema({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}).misfit(1) is None


def test_a_schema_of_a_thousand_long_patterns_is_refused_before_it_costs_anything() -> None:
    def seconds(count: int) -> float:
        """Refused or not: how long that took."""
        long = {f"p{each}": {"pattern": rf"(\p{{L}}|\p{{N}}){{180}}{each}"} for each in range(count)}
        began = time.process_time()
        with pytest.raises(ValueError, match=r"too large|patterns"):
            Schema({"properties": long})
        return time.process_time() - began

    assert seconds(1000) < 0.5
    assert seconds(MAX_PATTERNS) < 0.5


def test_as_many_patterns_as_a_schema_may_have_are_compiled_within_a_second() -> None:
    longest = {f"^\\p{{L}}{{1,20}}{each}$": {} for each in range(MAX_PATTERNS)}
    began = time.process_time()
    Schema({"patternProperties": longest})
    assert time.process_time() - began < 1


def test_a_schema_may_not_be_larger_than_its_bound() -> None:
    Schema({"description": "x" * (MAX_SCHEMA_BYTES - 100)})
    with pytest.raises(ValueError, match="bytes, and a schema may have"):
        Schema({"description": "x" * MAX_SCHEMA_BYTES})
