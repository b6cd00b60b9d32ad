"""The storm's checker notices every kind of fault: each is planted here."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared.sse import Frame
from tests.chaos.storm.check import faults_of_client, faults_of_run
from tests.chaos.storm.clients import ASKING, TICKING, Followed
from tests.chaos.storm.watch import Watch

GOOD_RUN: dict[str, Any] = {
    "id": "run_1", "status": "success", "error_code": None, "last_cursor": 4, "lease_token": None, "claim_after": None,
    "living": 0, "open": 0,
}  # fmt: skip
GOOD_LOG: dict[str, Any] = {"events": 4, "first": 1, "last": 4, "maybe_begun": 1, "ends": [4]}
STORED: list[dict[str, Any]] = [
    {"cursor": 1, "kind": "run.status", "data": '{"status": "queued"}'},
    {"cursor": 2, "kind": "message.completed", "data": '{"text": "tick 1"}'},
    {"cursor": 3, "kind": "message.completed", "data": '{"text": "tick 2"}'},
    {"cursor": 4, "kind": "run.status", "data": '{"status": "success"}'},
]


def seen(stored: list[dict[str, Any]], kind: str = TICKING, ticks: int = 2) -> Followed:
    frames = [
        Frame(str(row["cursor"]).encode(), row["kind"].encode(), json.dumps({"data": json.loads(row["data"])}).encode())
        for row in stored
    ]
    return Followed("run_1", kind, ticks, frames, [0.0] * len(frames))


def said(*texts: str, status: str = "success") -> list[dict[str, Any]]:
    messages = [{"kind": "message.completed", "data": json.dumps({"text": text})} for text in texts]
    events = [
        {"kind": "run.status", "data": '{"status": "queued"}'},
        *messages,
        {"kind": "run.status", "data": json.dumps({"status": status})},
    ]
    return [{"cursor": cursor, **event} for cursor, event in enumerate(events, 1)]


def test_a_run_that_keeps_every_promise_has_no_fault() -> None:
    assert faults_of_run(GOOD_RUN, GOOD_LOG) == []
    assert faults_of_run(GOOD_RUN | {"status": "error", "error_code": "executor_lost"}, GOOD_LOG) == []
    assert faults_of_client(seen(STORED), STORED) == []


def test_a_run_is_poison_only_if_three_attempts_of_it_may_have_begun() -> None:
    poison = GOOD_RUN | {"status": "error", "error_code": "poison_run"}
    assert [len(faults_of_run(poison, GOOD_LOG | {"maybe_begun": begun})) for begun in (0, 2, 3, 4)] == [1, 1, 0, 0]


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


@pytest.mark.parametrize("texts", [
    (), ("tick 1", "tick 2"), ("tick 2", "tick 3"), ("tick 1", "tick 3", "tick 2"), ("tick 1", "tick 2", "tick 2", "tick 3"),
    ("tick 1", "tick 2", "tick 3", "tick 4"), ("hello", "tick 1", "tick 2", "tick 3"),
])  # fmt: skip
def test_a_success_that_did_not_say_exactly_its_script_is_a_fault(texts: tuple[str, ...]) -> None:
    assert faults_of_client(seen(said("tick 1", "tick 2", "tick 3"), ticks=3), said("tick 1", "tick 2", "tick 3")) == []
    assert len(faults_of_client(seen(said(*texts), ticks=3), said(*texts))) == 1


@pytest.mark.parametrize(("texts", "faults"), [
    ((), 0), (("tick 1",), 0), (("tick 1", "tick 2", "tick 3"), 0),
    (("tick 2",), 1), (("tick 1", "tick 1"), 1), (("tick 1", "tick 3"), 1),
])  # fmt: skip
def test_what_a_lost_run_said_is_its_script_as_far_as_it_came(texts: tuple[str, ...], faults: int) -> None:
    stored = said(*texts, status="error")
    assert len(faults_of_client(seen(stored, ticks=3), stored)) == faults


WOKEN = ("spawned 7", "up", "turns: 2", "You asked: which colour?\nThe answer: blue")
ANSWERED = ("spawned 7", "up", "reply: blue", "after")


@pytest.mark.parametrize(("texts", "faults"), [
    (ANSWERED, 0), (WOKEN, 0), ((*ANSWERED[:2], "after"), 2), ((*ANSWERED[:3], *ANSWERED[2:]), 2), (ANSWERED[:3], 1),
    (ANSWERED[1:], 1), (WOKEN[:3], 2), ((*ANSWERED[:3], *WOKEN[2:]), 2), ((), 2),
])  # fmt: skip
def test_an_accepted_answer_is_told_once_and_the_script_goes_on(texts: tuple[str, ...], faults: int) -> None:
    client = seen(said(*texts), ASKING)
    client.promised["q1"] = "blue"
    assert len(faults_of_client(client, said(*texts))) == faults


def test_a_question_resolved_twice_is_a_fault() -> None:
    resolved = {"kind": "interaction.resolved", "data": '{"questionId": "q1", "how": "answered"}'}
    messages = said(*ANSWERED)
    for times, faults in ((1, 0), (2, 1)):
        events = [*messages[:3], *[resolved] * times, *messages[3:]]
        stored = [{**each, "cursor": cursor} for cursor, each in enumerate(events, 1)]
        assert len(faults_of_client(seen(stored, ASKING), stored)) == faults


async def test_a_watch_that_died_or_never_saw_an_engine_is_a_fault() -> None:
    async def dies() -> None:
        raise RuntimeError("no more files")

    watch = Watch("", lambda: {"run_1"})
    dead = asyncio.create_task(dies())
    await asyncio.wait([dead])
    assert len(watch.verdict(dead)) == 2
    alive = asyncio.create_task(asyncio.Event().wait())
    try:
        assert watch.verdict(alive) == ["the watch never saw an engine"]
    finally:
        alive.cancel()
