"""What may be gone on from where a session's newest files are not: nothing is done twice that was not allowed to be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from control_plane.domain.messages import Heard
from control_plane.domain.placing import GO_ON, provider_run
from control_plane.domain.run import DrivenRun
from control_plane.domain.standing import AttemptName, Snapshot, Standing
from shared.contracts.events import EventRef, InteractionRequested
from shared.contracts.interactions import InteractionType, Reply
from shared.contracts.providers import Provider
from shared.contracts.runs import RunStatus

LOST = EventRef(run_id="run_1", cursor=7)
OWN = Snapshot("a" * 64, 10, "/w/ses", "exec-1", "run_2", 1, 9, "s-own")
EARLIER = replace(OWN, run_id="run_1", cursor=5, engine_session="s-earlier", provider="scripted")
NEWEST = (AttemptName("run_2", 1),)
BEGINS = DrivenRun(
    run_id="run_2", status=RunStatus.QUEUED, provider=Provider.SCRIPTED, model=None, workspace_key="ses", resume_session="s-now",
    engine_session=None, request='{"prompt":"do it"}', profile=None, active_ms_left=None, stop_requested=False, attempt=1,
    executor_cursor=0,
)  # fmt: skip
GOES_ON = replace(BEGINS, status=RunStatus.RUNNING, attempt=2, engine_session="s-own", failures=1)
PARKED = replace(GOES_ON, status=RunStatus.WAITING_USER, failures=0)


def standing(snapshot: Snapshot | None, lost: EventRef | None = None, *, is_own: bool = False) -> Standing:
    return Standing(NEWEST, "exec-1", snapshot, lost, is_own)


TABLE = {
    "a run that begins goes on from what an earlier one left": (BEGINS, standing(EARLIER), "s-earlier", ["do it"]),
    "also where something after it is lost": (BEGINS, standing(EARLIER, LOST), "s-earlier", ["do it"]),
    "in the session it was to go on with, where that is not the last one": (
        BEGINS,
        standing(replace(EARLIER, knows_session=True)),
        "s-now",
        ["do it"],
    ),
    "in none, where it was to begin one": (replace(BEGINS, resume_session=None), standing(EARLIER), None, ["do it"]),
    "and in none of another engine": (BEGINS, standing(replace(EARLIER, provider="codex-app-server")), None, ["do it"]),
    "it does not begin in an empty folder": (BEGINS, standing(None, LOST), None, None),
    "a further attempt goes on from its own run's snapshot": (GOES_ON, standing(OWN), "s-own", [GO_ON]),
    "one that may begin again, from before the run": (GOES_ON, standing(EARLIER, LOST), "s-earlier", ["do it"]),
    "or from nothing, where nothing was before": (GOES_ON, standing(None, LOST, is_own=True), None, ["do it"]),
    "not from nothing where an earlier run had been": (GOES_ON, standing(None, LOST), None, None),
    "a snapshot without a session is told the request": (
        GOES_ON, standing(replace(OWN, engine_session=None)), None, ["do it"],
    ),
    "a run that waited goes on where it stood": (PARKED, standing(OWN), "s-own", [GO_ON]),
    "it does not do again what it did since": (PARKED, standing(OWN, LOST), None, None),
    "nor begin again": (PARKED, standing(EARLIER, LOST), None, None),
    "nor begin again from nothing": (PARKED, standing(None, LOST, is_own=True), None, None),
}  # fmt: skip


@pytest.mark.parametrize(("run", "known", "session", "messages"), TABLE.values(), ids=TABLE.keys())
def test_where_the_newest_files_are_not(run: DrivenRun, known: Standing, session: str | None, messages: list[str] | None) -> None:
    asked = provider_run(run, [], {}, standing=known)
    assert [(each.run_id, each.attempt) for each in asked.after] == [("run_2", 1)]
    other = asked.otherwise
    if messages is None:
        assert other is None
        return
    assert other is not None
    assert (other.resume_session_id, [each.content for each in other.messages]) == (session, messages)
    assert other.lost_from == known.lost_from
    assert (other.snapshot.sha256 if other.snapshot else None) == (known.snapshot.sha256 if known.snapshot else None)


def test_an_answer_travels_to_wherever_the_run_goes_on() -> None:
    question = InteractionRequested(question_id="q", type=InteractionType.QUESTION, prompt="which?")
    asked = provider_run(PARKED, [(question, Reply(answer="this"))], {}, standing=standing(OWN))
    assert asked.otherwise is not None
    assert asked.otherwise.messages == asked.messages
    assert "this" in asked.messages[0].content


TOLD = {
    "one that begins again is told it all": (GOES_ON, standing(None, LOST, is_own=True), ["do it", "early\n\nlate"]),
    "also from before the run": (GOES_ON, standing(EARLIER, LOST), ["do it", "early\n\nlate"]),
    "a snapshot knows what its attempt was told": (GOES_ON, standing(OWN, LOST), ["late"]),
    "and what those before it were told": (GOES_ON, standing(replace(OWN, attempt=2), LOST), [GO_ON]),
}


@pytest.mark.parametrize(("run", "known", "messages"), TOLD.values(), ids=TOLD.keys())
def test_what_engines_of_the_run_were_told_is_told_again_where_it_is_not_known(
    run: DrivenRun, known: Standing, messages: list[str]
) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    heard = [Heard(2, noon + timedelta(minutes=1), "late"), Heard(1, noon, "early")]
    asked = provider_run(replace(run, attempt=3), [], {}, standing=known, heard=heard)
    assert [each.content for each in asked.messages] == [GO_ON]
    assert asked.otherwise is not None
    assert [each.content for each in asked.otherwise.messages] == messages


@pytest.mark.parametrize(
    ("snapshot", "lost", "movable"), [(OWN, None, True), (OWN, LOST, False), (None, None, False), (None, LOST, False)]
)
def test_a_session_moves_while_its_executor_lives_only_where_nothing_is_lost(
    snapshot: Snapshot | None, lost: EventRef | None, movable: bool
) -> None:
    assert standing(snapshot, lost).is_movable is movable
