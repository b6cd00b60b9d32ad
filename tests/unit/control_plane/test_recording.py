"""What news makes of a run, without a database."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.endings import Ending
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Hold, Locked, Move, News, Stop
from control_plane.domain.recording import Change, absorb
from control_plane.domain.retrying import Policy, Tried
from shared.contracts.events import AttemptLost, Diagnostic
from shared.contracts.runs import TERMINAL, RunStatus
from shared.errors import ErrorCode

AT = datetime(2026, 1, 2, tzinfo=UTC)
RUN = Locked(
    run_id="run_1", status=RunStatus.RUNNING, last_cursor=3, attempt=1, executor_cursor=1, now=AT, has_lease=True,
    attempt_living=True,
)  # fmt: skip
LOST = Move(Signal.ATTEMPT_LOST, event=AttemptLost(reason="silent"))


def said(cursor: int, kind: str = "message.completed", **data: Any) -> FromExecutor:
    return FromExecutor(executor_cursor=cursor, attempt=1, at=AT, kind=kind, data=json.dumps(data or {"text": "hi"}))


def ended(cursor: int, outcome: str, **more: Any) -> FromExecutor:
    return said(cursor, "attempt.ended", outcome=outcome, activeMs=5, **more)


def asked(cursor: int, question: str = "q1-1") -> FromExecutor:
    return said(cursor, "interaction.requested", questionId=question, type="question", prompt="which?")


def resolved(cursor: int, question: str = "q1-1", how: str = "answered") -> FromExecutor:
    return said(cursor, "interaction.resolved", questionId=question, how=how, answer={"answer": "a"})


def kinds(change: Change) -> list[str]:
    return [event.kind for event in change.events]


def test_events_are_numbered_densely_after_the_last_one() -> None:
    change = absorb(RUN, [said(2), said(3), said(4)])
    assert [event.cursor for event in change.events] == [4, 5, 6]
    assert (change.last_cursor, change.executor_cursor) == (6, 4)


@pytest.mark.parametrize(("reason", "status"), [
    (ErrorCode.USER_CANCELED, RunStatus.CANCELED), (ErrorCode.TIMEOUT, RunStatus.TIMEOUT),
    (ErrorCode.INTERACTION_EXPIRED, RunStatus.ERROR),
])  # fmt: skip
def test_an_end_that_nobody_confirmed_is_the_one_it_was_stopped_for_and_is_told_once(
    reason: ErrorCode, status: RunStatus
) -> None:
    stopping = replace(RUN, status=RunStatus.STOPPING, stop_reason=reason)
    insisted = Move(Signal.STOPPED, event=Diagnostic(code="end_not_confirmed", message="it stays"))
    change = absorb(stopping, [insisted, insisted, ended(2, "success"), said(3)])
    assert (change.status, change.again, kinds(change)) == (status, None, ["diagnostic", "run.status"])
    assert change.ending is not None
    assert change.ending.error_code == reason
    assert change.outcome is not None  # its attempt is over with it


def test_what_was_written_before_is_not_written_again() -> None:
    first = absorb(RUN, [said(2), said(3)])
    again = absorb(replace(RUN, last_cursor=first.last_cursor, executor_cursor=3), [said(2), said(3), said(4)])
    assert [event.cursor for event in again.events] == [6]


def test_the_echo_of_an_older_attempt_changes_nothing() -> None:
    assert absorb(replace(RUN, attempt=2, executor_cursor=0), [said(7)]).events == []


def test_raw_output_gets_no_cursor() -> None:
    change = absorb(RUN, [said(2, "log", stream="stdout", byteFrom=0, base64="aGk="), said(3)])
    assert [event.cursor for event in change.events] == [4]
    assert change.raw[0].stream == "stdout"
    assert change.executor_cursor == 3


def test_a_question_makes_the_run_wait_and_says_until_when() -> None:
    change = absorb(replace(RUN, interaction_ms=60_000), [asked(2)])
    assert change.status is RunStatus.WAITING_USER
    assert kinds(change) == ["interaction.requested", "run.status"]
    assert change.asked[0].expires_at == AT + timedelta(minutes=1)
    assert json.loads(change.events[0].data)["onExpiry"] == "fail"


def test_the_run_goes_on_when_the_last_open_question_is_answered() -> None:
    waiting = replace(RUN, status=RunStatus.WAITING_USER, open_questions=frozenset({"q1-1", "q1-2"}))
    one = absorb(waiting, [resolved(2)])
    assert one.status is RunStatus.WAITING_USER
    both = absorb(waiting, [resolved(2), resolved(3, "q1-2")])
    assert both.status is RunStatus.RUNNING
    assert both.resolved == {"q1-1": "delivered", "q1-2": "delivered"}


def test_an_answer_is_stored_with_its_author() -> None:
    waiting = replace(RUN, status=RunStatus.WAITING_USER, open_questions=frozenset({"q1-1"}), answered_by={"q1-1": "key_7"})
    assert json.loads(absorb(waiting, [resolved(2)]).events[0].data)["answeredBy"] == "key_7"


def test_the_end_of_an_attempt_ends_the_run_in_the_same_change() -> None:
    change = absorb(RUN, [said(2), ended(3, "success", result="done", usage={"inputTokens": 1, "outputTokens": 2})])
    assert kinds(change)[-2:] == ["attempt.ended", "run.status"]
    terminal = json.loads(change.events[-1].data)
    assert (terminal["status"], terminal["result"], terminal["usage"]["outputTokens"]) == ("success", "done", 2)
    assert change.ended
    assert change.outcome is not None


def test_nothing_is_written_after_the_end() -> None:
    assert kinds(absorb(RUN, [ended(2, "success"), said(3), said(4)])) == ["attempt.ended", "run.status"]


@pytest.mark.parametrize(("reason", "status"), [
    (ErrorCode.USER_CANCELED, RunStatus.CANCELED),
    (ErrorCode.TIMEOUT, RunStatus.TIMEOUT),
    (ErrorCode.INTERACTION_EXPIRED, RunStatus.ERROR),
])  # fmt: skip
def test_a_stop_ends_the_run_as_what_it_was_asked_for(reason: ErrorCode, status: RunStatus) -> None:
    stopping = absorb(RUN, [Stop(reason)])
    assert stopping.status is RunStatus.STOPPING
    over = absorb(replace(RUN, status=RunStatus.STOPPING, stop_reason=reason), [ended(2, "canceled")])
    assert (over.status, over.ending and over.ending.error_code) == (status, reason)


def test_a_queued_run_nobody_has_claimed_is_canceled_at_once() -> None:
    queued = replace(RUN, status=RunStatus.QUEUED, has_lease=False, attempt_living=False, attempt=0)
    assert absorb(queued, [Stop()]).status is RunStatus.CANCELED
    assert absorb(replace(queued, has_lease=True), [Stop()]).status is RunStatus.STOPPING


@pytest.mark.parametrize("has_lease", [False, True])
def test_a_run_that_only_waited_says_so_whoever_writes_its_end(has_lease: bool) -> None:
    queued = replace(RUN, status=RunStatus.QUEUED, has_lease=has_lease, attempt_living=False, attempt=0)
    change = absorb(queued, [Stop(ErrorCode.TIMEOUT, "it waited")])
    assert change.stop_detail == "it waited"
    if has_lease:
        asked = replace(queued, status=change.status, stop_reason="timeout", stop_detail=change.stop_detail)
        change = absorb(asked, [Move(Signal.STOPPED)])
    assert change.status is RunStatus.TIMEOUT
    assert change.ending == Ending(ErrorCode.TIMEOUT, "it waited", None)


def test_a_limit_that_passed_while_somebody_interrupted_says_which_limit() -> None:
    stopping = replace(RUN, status=RunStatus.STOPPING, stop_reason="user_canceled", stop_detail="interrupted")
    change = absorb(stopping, [ended(2, "timeout", errorCode="timeout", errorMessage="longer than 5 s")])
    told = change.ending
    assert (change.status, told and told.error_message) == (RunStatus.TIMEOUT, "longer than 5 s")


def test_a_stop_waits_for_an_attempt_that_may_live_although_nobody_drives_it() -> None:
    for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_USER):
        assert absorb(replace(RUN, status=status, has_lease=False), [Stop()]).status is RunStatus.STOPPING


def test_success_that_came_before_the_kill_counts() -> None:
    stopping = replace(RUN, status=RunStatus.STOPPING, stop_reason="user_canceled")
    change = absorb(stopping, [ended(2, "success")])
    assert change.status is RunStatus.SUCCESS
    assert change.ending is not None
    assert change.ending.error_code is None


# By our own word, by an executor's, and on purpose.
GONE = [LOST, ended(2, "lost", errorCode="executor_lost"), ended(2, "parked")]


@pytest.mark.parametrize("loss", GONE)
def test_an_attempt_that_is_gone_leaves_the_run_running(loss: News) -> None:
    change = absorb(RUN, [loss])
    assert change.status is RunStatus.RUNNING
    assert change.outcome is not None
    assert not change.ended


@pytest.mark.parametrize("loss", GONE)
def test_a_run_whose_attempt_is_gone_while_it_waits_for_a_person_is_parked(loss: News) -> None:
    waiting = replace(RUN, status=RunStatus.WAITING_USER, open_questions=frozenset({"q1-1"}))
    change = absorb(waiting, [loss])
    assert change.status is RunStatus.WAITING_USER
    assert change.parked
    assert change.resolved == {}
    assert change.again is None, "a parking is no try, nor is a loss while a person is asked"


@pytest.mark.parametrize("loss", GONE)
def test_a_stopping_run_whose_attempt_is_gone_is_canceled(loss: News) -> None:
    assert absorb(replace(RUN, status=RunStatus.STOPPING, stop_reason="user_canceled"), [loss]).status is RunStatus.CANCELED


def test_an_end_withdraws_what_is_still_asked() -> None:
    waiting = replace(
        RUN, status=RunStatus.WAITING_USER, open_questions=frozenset({"q1-1"}), attempt_living=False, has_lease=False
    )
    change = absorb(waiting, [Stop()])
    assert kinds(change) == ["interaction.resolved", "run.status"]
    assert change.resolved == {"q1-1": "withdrawn"}


def test_an_attempt_whose_run_ends_over_its_head_ends_too() -> None:
    change = absorb(replace(RUN, status=RunStatus.QUEUED), [Move(Signal.START_REFUSED, ErrorCode.AUTH_MISSING, "no key")])
    assert change.status is RunStatus.ERROR
    assert json.loads(change.outcome or "{}")["errorCode"] == "auth_missing"


def test_a_message_for_people_holds_no_nul_and_has_a_length() -> None:
    change = absorb(RUN, [ended(2, "error", errorCode="internal", errorMessage="a\0b" + "x" * 10_000)])
    assert change.ending is not None
    assert change.ending.error_message is not None
    assert change.ending.error_message.startswith("abx")
    assert len(change.ending.error_message) <= 4096


def test_a_run_that_is_held_says_so_once_and_one_that_is_to_stop_is_only_let_go() -> None:
    hold = Hold(9.0, Diagnostic(code="provider_paused", message="it waits"))
    cases = [RUN, replace(RUN, held=True), replace(RUN, stop_reason="timeout")]
    changes = [absorb(case, [hold]) for case in cases]
    assert [(kinds(change), change.hold_seconds) for change in changes] == [(["diagnostic"], 9.0), ([], 9.0), ([], 0)]
    assert {(change.status, change.lets_go) for change in changes} == {(RunStatus.RUNNING, True)}


@pytest.mark.parametrize(("acted_before", "is_trying", "was_answered"), [
    (False, False, True), (True, False, False), (True, True, True),
])  # fmt: skip
def test_a_model_has_answered_with_a_runs_first_tool_and_with_each_of_the_run_that_tries(
    acted_before: bool, is_trying: bool, was_answered: bool
) -> None:
    run = replace(RUN, tried=Tried(acted=acted_before), is_trying=is_trying)
    assert not absorb(run, [said(2)]).was_answered
    change = absorb(run, [said(2, "tool.started", toolId="t", name="shell")])
    assert (change.was_answered, change.acted) == (was_answered, not acted_before)


NEWS = st.one_of(
    st.integers(1, 9).map(said),
    st.integers(1, 9).map(lambda cursor: asked(cursor, f"q1-{cursor}")),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda pair: resolved(pair[0], f"q1-{pair[1]}")),
    st.tuples(st.integers(1, 9), st.sampled_from(["success", "error", "timeout", "canceled", "lost"])).map(lambda p: ended(*p)),
    st.just(Stop()),
    st.just(LOST),
    st.sampled_from([Move(Signal.ATTEMPT_ACCEPTED), Move(Signal.GIVEN_UP, ErrorCode.EXECUTOR_LOST), Move(Signal.STOPPED)]),
)


@given(st.sampled_from([RunStatus.RUNNING, RunStatus.WAITING_USER, RunStatus.STOPPING]), st.lists(NEWS, max_size=12))
def test_whatever_happens_the_log_is_dense_and_its_end_is_the_end(status: RunStatus, news: list[News]) -> None:
    run = replace(RUN, status=status, stop_reason="user_canceled" if status is RunStatus.STOPPING else None)
    change = absorb(run, news)
    cursors = [event.cursor for event in change.events]
    assert cursors == list(range(4, 4 + len(cursors)))
    assert change.last_cursor == 3 + len(cursors)
    terminal = [
        index for index, event in enumerate(change.events)
        if event.kind == "run.status" and json.loads(event.data)["status"] in set(TERMINAL)
    ]  # fmt: skip
    assert terminal == ([len(cursors) - 1] if change.ended else [])
    assert (change.status in TERMINAL) == change.ended


@given(st.lists(NEWS, max_size=12), st.integers(0, 12))
def test_how_news_is_cut_into_windows_does_not_matter(news: list[News], cut: int) -> None:
    whole = absorb(RUN, news)
    first = absorb(RUN, news[:cut])
    between = replace(
        RUN, status=first.status, last_cursor=first.last_cursor, executor_cursor=first.executor_cursor,
        stop_reason=first.stop_reason, attempt_living=first.outcome is None,
        open_questions=frozenset({each.question_id for each in first.asked} - set(first.resolved)),
    )  # fmt: skip
    second = absorb(between, news[cut:])
    assert second.status == whole.status
    if not any((isinstance(each, FromExecutor) and "lost" in each.data) or each is LOST for each in news):
        assert [e.data for e in (*first.events, *second.events)] == [e.data for e in whole.events]


def test_cursors_never_repeat_within_a_change() -> None:
    change = absorb(RUN, [asked(2), resolved(3), said(4), ended(5, "success")])
    assert all(later.cursor == earlier.cursor + 1 for earlier, later in pairwise(change.events))


# ---- further attempts ----

LIMITED = {"errorCode": "rate_limited", "errorMessage": "429"}


def test_a_failure_that_can_pass_leaves_the_run_running_and_says_when_it_goes_on() -> None:
    change = absorb(replace(RUN, chance=0.0), [said(2), ended(3, "error", **LIMITED)])
    assert (change.status, change.ended, change.attempt_over, change.waits) == (RunStatus.RUNNING, False, True, True)
    assert kinds(change) == ["message.completed", "attempt.ended", "retry.scheduled"]
    told = json.loads(change.events[-1].data)
    assert (told["attempt"], told["delayMs"], told["at"]) == (2, 2500, "2026-01-02T00:00:02.500000Z")
    assert change.again is not None
    assert change.again.afresh


def test_the_time_a_first_attempt_was_given_in_the_same_window_counts() -> None:
    began = said(2, "attempt.started", timeouts={"runMs": 2_000})
    assert absorb(RUN, [began, ended(3, "error", **LIMITED)]).status is RunStatus.ERROR


@pytest.mark.parametrize("deed", [said(2, "tool.started", toolId="t"), said(2, "artifact.created", path="a"), asked(2)])
def test_a_deed_in_the_same_window_or_before_it_forbids_another_attempt(deed: FromExecutor) -> None:
    assert absorb(RUN, [deed, ended(3, "error", **LIMITED)]).status is RunStatus.ERROR
    first = absorb(RUN, [deed])
    assert first.acted
    later = replace(RUN, executor_cursor=2, tried=Tried(acted=True))
    assert absorb(later, [ended(3, "error", **LIMITED)]).status is RunStatus.ERROR


def test_a_run_that_was_asked_to_stop_gets_no_other_attempt() -> None:
    stopping = replace(RUN, status=RunStatus.STOPPING, stop_reason="user_canceled")
    assert absorb(stopping, [ended(2, "error", **LIMITED)]).status is RunStatus.ERROR


def test_a_question_of_a_failed_engine_is_withdrawn_and_the_run_no_longer_waits_for_its_answer() -> None:
    run = replace(RUN, policy=Policy(after_side_effects=True))
    change = absorb(run, [asked(2), ended(3, "error", **LIMITED)])
    assert (change.status, change.resolved) == (RunStatus.RUNNING, {"q1-1": "withdrawn"})
    assert kinds(change)[-3:] == ["interaction.resolved", "run.status", "retry.scheduled"]


def test_an_attempt_that_worked_before_it_was_lost_ends_its_run() -> None:
    change = absorb(replace(RUN, executor_cursor=3), [LOST])
    assert (change.status, change.ending and change.ending.error_code) == (RunStatus.ERROR, ErrorCode.EXECUTOR_LOST)
    assert absorb(replace(RUN, has_session=True), [LOST]).ended


def test_a_start_refused_for_now_is_an_attempt_that_failed() -> None:
    queued = replace(RUN, status=RunStatus.QUEUED)
    change = absorb(queued, [Move(Signal.START_REFUSED, ErrorCode.ENGINE_START_FAILED, "no memory")])
    assert (change.status, change.waits) == (RunStatus.QUEUED, True)
    assert json.loads(change.outcome or "{}")["errorMessage"] == "no memory"


def test_an_attempt_that_is_over_says_nothing_more() -> None:
    change = absorb(RUN, [ended(2, "error", **LIMITED), said(3), ended(4, "success")])
    assert kinds(change) == ["attempt.ended", "retry.scheduled"]
