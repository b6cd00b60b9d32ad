"""The storm's checker notices every kind of fault: each is planted here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.sse import Frame
from tests.chaos.storm.check import faults_of_client, faults_of_run
from tests.chaos.storm.clients import ASKING, TICKING, Followed

GOOD_RUN: dict[str, Any] = {
    "id": "run_1", "status": "success", "error_code": None, "last_cursor": 4, "lease_token": None, "claim_after": None,
    "living": 0, "open": 0,
}  # fmt: skip
GOOD_LOG: dict[str, Any] = {"events": 4, "first": 1, "last": 4, "ends": [4]}
STORED: list[dict[str, Any]] = [
    {"cursor": 1, "kind": "run.status", "data": '{"status": "queued"}'},
    {"cursor": 2, "kind": "message.completed", "data": '{"text": "tick 1"}'},
    {"cursor": 3, "kind": "message.completed", "data": '{"text": "tick 2"}'},
    {"cursor": 4, "kind": "run.status", "data": '{"status": "success"}'},
]


def seen(stored: list[dict[str, Any]], kind: str = TICKING) -> Followed:
    frames = [
        Frame(str(row["cursor"]).encode(), row["kind"].encode(), json.dumps({"data": json.loads(row["data"])}).encode())
        for row in stored
    ]
    return Followed("run_1", kind, frames, [0.0] * len(frames))


def said(*texts: str) -> list[dict[str, Any]]:
    messages = [{"kind": "message.completed", "data": json.dumps({"text": text})} for text in texts]
    events = [
        {"kind": "run.status", "data": '{"status": "queued"}'},
        *messages,
        {"kind": "run.status", "data": '{"status": "success"}'},
    ]
    return [{"cursor": cursor, **event} for cursor, event in enumerate(events, 1)]


def test_a_run_that_keeps_every_promise_has_no_fault() -> None:
    assert faults_of_run(GOOD_RUN, GOOD_LOG) == []
    assert faults_of_run(GOOD_RUN | {"status": "error", "error_code": "executor_lost"}, GOOD_LOG) == []
    assert faults_of_client(seen(STORED), STORED) == []


@pytest.mark.parametrize(
    "run", [
        {"status": "running"}, {"status": "error", "error_code": "internal"}, {"last_cursor": 5}, {"lease_token": "x"},
        {"claim_after": "now"}, {"living": 1}, {"open": 1},
    ],
)  # fmt: skip
def test_a_run_that_hangs_or_left_something_behind_is_a_fault(run: dict[str, Any]) -> None:
    assert faults_of_run(GOOD_RUN | run, GOOD_LOG)


@pytest.mark.parametrize("log", [{"events": 3}, {"first": 2}, {"ends": None}, {"ends": [3]}, {"ends": [3, 4]}])
def test_a_log_with_a_hole_or_without_one_last_end_is_a_fault(log: dict[str, Any]) -> None:
    assert faults_of_run(GOOD_RUN, GOOD_LOG | log)


def test_a_run_without_a_log_is_a_fault() -> None:
    assert faults_of_run(GOOD_RUN, None)


@pytest.mark.parametrize("lost", range(4))
def test_an_event_that_a_client_did_not_see_is_a_fault(lost: int) -> None:
    assert faults_of_client(seen(STORED[:lost] + STORED[lost + 1 :]), STORED)


def test_an_event_seen_twice_or_in_another_order_is_a_fault() -> None:
    assert faults_of_client(seen([*STORED[:2], STORED[1], *STORED[2:]]), STORED)
    assert faults_of_client(seen([STORED[0], STORED[2], STORED[1], STORED[3]]), STORED)


@pytest.mark.parametrize("ticks", [("tick 2", "tick 1"), ("tick 1", "tick 1"), ("tick 2",)])
def test_what_an_engine_said_in_another_order_is_a_fault(ticks: tuple[str, ...]) -> None:
    assert faults_of_client(seen(said(*ticks)), said(*ticks))


@pytest.mark.parametrize(("texts", "faults"), [(("reply: blue",), 0), ((), 1), (("reply: blue", "reply: blue"), 1)])
def test_an_accepted_answer_is_told_once(texts: tuple[str, ...], faults: int) -> None:
    client = seen(said(*texts), ASKING)
    client.promised["q1"] = "blue"
    assert len(faults_of_client(client, said(*texts))) == faults


def test_a_question_resolved_twice_is_a_fault() -> None:
    resolved = {"kind": "interaction.resolved", "data": '{"questionId": "q1", "how": "answered"}'}
    stored = [{**each, "cursor": cursor} for cursor, each in enumerate([STORED[0], resolved, resolved, STORED[3]], 1)]
    assert faults_of_client(seen(stored, ASKING), stored)
