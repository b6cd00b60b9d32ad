"""The table of failure classes is total, and the numbers of a report are those of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.stress.report import markdown, plot, quantiles, summarize
from scripts.stress.verdicts import BY_CODE, BY_OUTCOME, OF_STATUS, SUGGESTIONS, FailureClass, Outcome, classify
from shared.contracts.runs import TERMINAL
from shared.errors import ErrorCode


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_has_a_class_that_says_something(code: ErrorCode) -> None:
    assert BY_CODE[code] not in (FailureClass.NONE, FailureClass.UNCLASSIFIED)
    assert classify(Outcome.FAILED, code) is BY_CODE[code]


def test_every_class_but_success_has_a_suggestion_and_a_way_into_it() -> None:
    assert set(SUGGESTIONS) == set(FailureClass)
    assert [each for each in FailureClass if not SUGGESTIONS[each]] == [FailureClass.NONE]
    assert {*BY_CODE.values(), *BY_OUTCOME.values(), FailureClass.UNCLASSIFIED} == set(FailureClass)


def test_every_terminal_status_has_an_outcome() -> None:
    assert set(OF_STATUS) == {status.value for status in TERMINAL}


@pytest.mark.parametrize("code", [None, "", "something_new"])
def test_a_failure_whose_code_nobody_knows_is_unclassified_and_fails_the_whole(code: str | None) -> None:
    assert classify(Outcome.FAILED, code) is FailureClass.UNCLASSIFIED
    good, bad = result(), result(Outcome.FAILED, FailureClass.UNCLASSIFIED, code)
    summary = summarize([good] * 99 + [bad], threshold=0.5, seconds=1)
    assert (summary["unclassified"], summary["passed"]) == (1, False)


def result(
    outcome: Outcome = Outcome.SUCCEEDED, failure: FailureClass = FailureClass.NONE, code: str | None = None
) -> dict[str, Any]:
    times = {"accepted": 5, "firstEvent": 10, "firstText": None, "total": 100 if outcome is Outcome.SUCCEEDED else None}
    return {
        "runId": "run_1", "outcome": outcome.value, "failureClass": failure.value, "errorCode": code,
        "reconnects": 1, "events": 3, "latencyMs": times,
    }  # fmt: skip


def test_a_summary_counts_what_happened() -> None:
    failed = result(Outcome.FAILED, FailureClass.AUTH_MISSING, "auth_missing")
    summary = summarize([result(), result(), result(), failed], threshold=0.75, seconds=2)
    assert (summary["runs"], summary["succeeded"], summary["successRate"], summary["passed"]) == (4, 3, 0.75, True)
    assert summary["failureClassCounts"] == {"none": 3, "auth_missing": 1}
    assert (summary["reconnects"], summary["resumedRuns"], summary["events"]) == (4, 3, 12)
    assert summary["latencyMs"]["total"] == {"count": 3, "p50": 100, "p90": 100, "p99": 100, "max": 100}
    assert summary["latencyMs"]["firstText"]["p50"] is None
    [top] = summary["topFailures"]
    assert (top["code"], top["count"], top["examples"]) == ("auth_missing", 1, ["run_1"])
    assert not summarize([result(), failed], threshold=0.75, seconds=2)["passed"]


def test_a_quantile_is_a_value_that_was_measured() -> None:
    assert quantiles(list(range(1, 101))) == {"count": 100, "p50": 50, "p90": 90, "p99": 99, "max": 100}


def test_the_report_for_people_says_the_verdict_and_what_to_do(tmp_path: Path) -> None:
    failed = result(Outcome.FAILED, FailureClass.AUTH_MISSING, "auth_missing")
    config = {"baseUrl": "http://here", "concurrency": 2, "client": "curl -N"}
    report = {"generatedAt": "now", "config": config, "plot": "p.png", "summary": summarize([failed], 0.8, 1.0)}
    text = markdown(json.loads(json.dumps(report)))
    assert text.startswith("# Stress: failed")
    assert SUGGESTIONS[FailureClass.AUTH_MISSING] in text
    assert plot([failed, result()], tmp_path / "p.png")
    assert plot([], tmp_path / "empty.png"), "no run got anywhere: an empty picture, not an error"
