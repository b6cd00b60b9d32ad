"""The flat frames of ``?view=workbench``: kept ones byte for byte, and what holds for every log and every cursor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.runs.flatten import Flattened
from control_plane.views.workbench import Workbench
from shared.contracts.runs import TERMINAL
from shared.sse import Frame, FrameReader

RECORDINGS = Path(__file__).parents[2] / "recordings" / "workbench"
CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/events.sse"))
AT = "2026-01-01T00:00:00.000000Z"
RUN = "run_1"


def events_of(case: str) -> list[bytes]:
    return [frame.data for frame in FrameReader().feed((RECORDINGS / case / "events.sse").read_bytes())]


def read(log: list[bytes], after: int = 0, run_id: str = RUN) -> bytes:
    """What a reader that resumes after a cursor is sent."""
    view = Workbench(run_id, "scripted", after)
    return b"".join(view.frames(event) for event in log)


def log_of(*events: tuple[str, dict[str, Any]], attempt: int = 1) -> list[bytes]:
    return [
        json.dumps({"cursor": cursor, "runId": RUN, "attempt": attempt, "at": AT, "kind": kind, "data": data}).encode()
        for cursor, (kind, data) in enumerate(events, 1)
    ]


def told(log: list[bytes]) -> list[dict[str, Any]]:
    """The frames' JSON without what they all say."""
    common = ("runId", "provider", "ts")
    return [
        {name: value for name, value in json.loads(frame.data).items() if name not in common}
        for frame in FrameReader().feed(read(log))
    ]


def ends(status: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("run.status", {"status": status, **more})


RUNNING = ("run.status", {"status": "running", "reason": "attempt_accepted"})


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_run_becomes_the_kept_frames_byte_for_byte(case: str) -> None:
    kept = RECORDINGS / case / "frames.sse"
    made = read(events_of(case), run_id=f"run_{case}")
    if os.environ.get("RUNYARD_UPDATE_RECORDINGS"):
        kept.write_bytes(made)
    assert made == kept.read_bytes()


@pytest.mark.parametrize(("end", "frame"), [
    (ends("success", detail="success"), {"status": "finished", "detail": "succeeded"}),
    (ends("canceled", errorCode="user_canceled", errorMessage="Someone"), {"status": "finished", "detail": "canceled"}),
    (ends("error", errorCode="auth_missing", errorMessage="no key"), {"status": "failed", "detail": "auth_missing: no key"}),
    (ends("timeout", errorCode="timeout"), {"status": "failed", "detail": "timeout"}),
    (ends("error", detail="error: finish_reason:error"), {"status": "failed", "detail": "error: finish_reason:error"}),
    (ends("error", errorCode="capability_unavailable", errorMessage="no questions"),
     {"status": "blocked", "detail": "capability_unavailable: no questions"}),
])  # fmt: skip
def test_every_end_is_told_in_the_words_these_callers_compare_with(end: tuple[str, Any], frame: dict[str, Any]) -> None:
    assert told(log_of(end)) == [{"type": "run.status", **frame}, {"type": "run.closed"}]


def test_a_run_starts_once_and_waiting_for_a_person_is_not_an_end() -> None:
    waiting, again = ends("waiting_user", reason="asked"), ends("running", reason="answered")
    asked = ("interaction.requested", {"questionId": "q", "type": "question", "prompt": "?"})
    assert told(log_of(ends("queued"), RUNNING, asked, waiting, again, ends("stopping"))) == [
        {"type": "run.status", "status": "started"}
    ]


def test_a_message_without_deltas_is_told_and_one_with_deltas_is_not_told_twice() -> None:
    log = log_of(
        ("message.delta", {"messageId": "m1", "text": "a"}),
        ("message.completed", {"messageId": "m1", "text": "a", "final": False}),
        ("message.completed", {"messageId": "m2", "text": "b", "final": True}),
        ("message.completed", {"messageId": "m3", "text": "", "final": True}),
    )
    assert [each["text"] for each in told(log)] == ["a", "b"]


def test_what_a_sub_agent_says_is_nobodys_answer() -> None:
    log = log_of(
        ("message.delta", {"messageId": "h1", "text": "a", "parentToolId": "t1"}),
        ("message.completed", {"messageId": "h1", "text": "a", "final": False, "parentToolId": "t1"}),
        ("message.completed", {"messageId": "h2", "text": "b", "final": False, "parentToolId": "t1"}),
        ("message.completed", {"messageId": "m1", "text": "c", "final": True}),
    )
    assert [each["text"] for each in told(log)] == ["c"]


def test_a_message_that_was_cut_off_does_not_hide_its_namesake_of_the_next_attempt() -> None:
    first = log_of(("message.delta", {"messageId": "m1", "text": "a"}))
    event = {
        "cursor": 2,
        "runId": RUN,
        "attempt": 2,
        "at": AT,
        "kind": "message.completed",
        "data": {"messageId": "m1", "text": "b"},
    }
    assert [each["text"] for each in told([*first, json.dumps(event).encode()])] == ["a", "b"]


def plan(*items: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    return ("plan.updated", {"items": [{"text": text, "status": status} for text, status in items]})


def test_a_plan_tells_only_what_changed_and_cancels_what_it_dropped_unfinished() -> None:
    log = log_of(
        plan(("a", "completed"), ("b", "in_progress"), ("c", "pending")),
        plan(("a", "completed"), ("b", "in_progress"), ("c", "pending")),
        plan(("a", "completed")),
        plan(),
        plan(("x", "pending")),
    )
    todos = [(each["todo"]["todoId"], each["todo"]["content"], each["todo"]["status"]) for each in told(log)]
    assert todos == [
        ("todo-1", "a", "done"), ("todo-2", "b", "doing"), ("todo-3", "c", "todo"),
        ("todo-2", "b", "canceled"), ("todo-3", "c", "canceled"),
        ("todo-1", "x", "todo"),
    ]  # fmt: skip


def test_only_the_last_of_several_frames_of_an_event_has_its_id() -> None:
    frames = FrameReader().feed(read(log_of(plan(("a", "pending"), ("b", "pending")), ends("success"))))
    assert [(frame.id, frame.event) for frame in frames] == [
        (b"", b"todo.update"), (b"1", b"todo.update"), (b"2", b"run.status"), (b"", b"run.closed"),
    ]  # fmt: skip


@pytest.mark.parametrize(("event", "warning"), [
    (("diagnostic", {"code": "quota_low", "severity": "warning", "message": "m"}), "quota_low: m"),
    (("diagnostic", {"code": "quota_low", "severity": "error", "message": "m"}), "quota_low: m"),
    (("retry.scheduled", {"by": "engine", "reason": "429"}), "retry_scheduled: 429"),
    (("attempt.lost", {"reason": "silent"}), "executor_lost: silent"),
    (("stream.gap", {"from": 1, "to": 9}), "stream_gap: events 1 to 9 are no longer kept"),
])  # fmt: skip
def test_trouble_on_the_way_is_a_warning(event: tuple[str, Any], warning: str) -> None:
    assert told(log_of(event)) == [{"type": "run.warning", "warning": warning}]


@pytest.mark.parametrize("event", [
    ("diagnostic", {"code": "c", "severity": "info", "message": "m"}), ("raw.stdout", {"text": "x"}), ("kind.of.tomorrow", {}),
    ("reasoning.delta", {"messageId": "m", "text": "x"}), ends("paused"),
])  # fmt: skip
def test_what_these_callers_have_no_word_for_is_left_out(event: tuple[str, Any]) -> None:
    assert read(log_of(event)) == b""


# ---- every log, every cursor ----

PLANS = st.lists(
    st.fixed_dictionaries({
        "text": st.sampled_from(["a", "b"]), "status": st.sampled_from(["pending", "in_progress", "completed"])
    }),
    max_size=4,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries({"messageId": st.sampled_from(["m1", "m2"]), "text": st.sampled_from(["", "x", "ü\u2028"])})
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["message.delta", "message.completed"]), MESSAGES),
    st.tuples(st.just("plan.updated"), st.fixed_dictionaries({"items": PLANS})),
    st.tuples(st.just("run.status"), st.fixed_dictionaries({"status": st.sampled_from(["running", "waiting_user", "stopping"])})),
    st.just(("diagnostic", {"code": "c", "severity": "warning", "message": "m"})),
    st.just(("tool.started", {"toolId": "t", "name": "n"})),
)
LOGS = st.builds(
    lambda events, end: log_of(*events, *([ends(end)] if end else [])),
    st.lists(EVENTS, max_size=12),
    st.sampled_from([None, *sorted(TERMINAL)]),
)


def by_event(log: list[bytes]) -> list[bytes]:
    """What the whole stream says of each event, the closing frame apart."""
    view = Workbench(RUN, "scripted")
    return [view.frames(event).replace(CLOSED, b"") for event in log]


CLOSED = b'event: run.closed\ndata: {"type":"run.closed","runId":"run_1"}\n\n'


@settings(max_examples=200, deadline=None, derandomize=True)
@given(log=LOGS)
def test_from_any_cursor_a_reader_gets_the_rest_of_the_whole_stream(log: list[bytes]) -> None:
    parts = by_event(log)
    closing = CLOSED if read(log).endswith(CLOSED) else b""
    for cursor in range(len(log) + 1):
        assert read(log, cursor) == b"".join(parts[cursor:]) + closing


@settings(max_examples=200, deadline=None, derandomize=True)
@given(log=LOGS, data=st.data())
def test_a_reader_cut_after_any_frame_loses_nothing_and_hears_twice_only_of_todos(log: list[bytes], data: st.DataObject) -> None:
    whole = FrameReader().feed(read(log))
    taken = whole[: data.draw(st.integers(0, len(whole)))]
    last_id = next((int(frame.id) for frame in reversed(taken) if frame.id), 0)
    resumed = FrameReader().feed(read(log, last_id))
    if taken and taken[-1].event == b"run.closed":
        return
    heard = [*taken, *resumed]
    assert without_repeats(heard) == without_repeats(whole)
    twice = [frame for frame in resumed if frame in taken and frame.event != b"todo.update"]
    assert [frame for frame in twice if int(frame.id or 0) <= last_id] == []


def without_repeats(frames: list[Frame]) -> list[Frame]:
    """Frames of one event said again at a cut stand together; what is left is what was heard."""
    return list(dict.fromkeys(_with_event(frames)))


def _with_event(frames: list[Frame]) -> list[Any]:
    """Each frame with the id its event will have: frames without one belong to the next id."""
    named: list[Any] = []
    coming = b"end"
    for frame in reversed(frames):
        coming = frame.id or (coming if frame.event == b"todo.update" else b"end")
        named.append((coming, frame.event, frame.data))
    return named[::-1]


# ---- the reader ----


class Source:
    """Blocks as scripted; "" is a silence."""

    def __init__(self, *blocks: bytes | None) -> None:
        self.blocks = list(blocks)
        self.asked: list[float] = []
        self.closed = 0

    async def next(self, within: float) -> bytes | None:
        self.asked.append(within)
        return self.blocks.pop(0)

    async def close(self) -> None:
        self.closed += 1


def framed(*events: bytes) -> bytes:
    return b"".join(b"id: 1\nevent: e\ndata: %b\n\n" % event for event in events)


NOISE = framed(*log_of(("raw.stdout", {"text": "x"})))
SOUND = framed(*log_of(("message.delta", {"messageId": "m", "text": "x"})))


async def test_a_reader_passes_over_what_shows_nothing_and_ends_where_the_run_does() -> None:
    source = Source(NOISE, NOISE, SOUND, None)
    reader = Flattened(source, Workbench(RUN, "scripted"))
    assert b"message.delta" in (await reader.next(10) or b"")
    assert await reader.next(10) is None
    await reader.close()
    assert source.closed == 1


async def test_a_silence_is_passed_on_as_one() -> None:
    assert await Flattened(Source(NOISE, b""), Workbench(RUN, "scripted")).next(10) == b""


async def test_a_run_that_only_makes_noise_still_gets_its_heartbeats_in_time() -> None:
    source, now = Source(*[NOISE] * 9), iter(range(100))
    reader = Flattened(source, Workbench(RUN, "scripted"), clock=lambda: float(next(now)))
    assert await reader.next(5) == b""
    assert source.asked == [4.0, 3.0, 2.0, 1.0]
