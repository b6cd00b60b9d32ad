from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from executor.events import event_log
from executor.events.event_log import EventLog, RawSpan
from executor.events.journal import Journal, JournalError, JournalHead
from executor.events.payloads import MAX_EVENT_BYTES, payload_json
from shared.contracts.events import (
    AttemptEnded,
    AttemptOutcome,
    Diagnostic,
    ExecutorEvent,
    Kind,
    MessageCompleted,
    MessageDelta,
    PlanItem,
    PlanUpdated,
    ReasoningDelta,
    ToolCompleted,
)
from shared.sse import CutError, FrameReader

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
ENDED = AttemptEnded(outcome=AttemptOutcome.SUCCESS)


def never(error: JournalError) -> None:
    raise AssertionError(error)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path, JournalHead("run_1", 2, "scripted", "e", "i", "2026-01-01T00:00:00+00:00", "w"))


@pytest.fixture
async def events(journal: Journal) -> EventLog:
    return EventLog(journal, lambda: AT, never)


def written(journal: Journal) -> list[dict[str, Any]]:
    blocks, cursor = b"", 0
    while cursor < journal.count:
        block, cursor = journal.read(cursor, 10**9)
        blocks += block
    frames = FrameReader().feed(blocks)
    found = [json.loads(frame.data) for frame in frames]
    assert [int(frame.id) for frame in frames] == [event["executorCursor"] for event in found] == [*range(1, len(found) + 1)]
    assert [frame.event.decode() for frame in frames] == [event["kind"] for event in found]
    return found


async def test_an_event_is_one_frame_with_its_envelope(journal: Journal, events: EventLog) -> None:
    events.emit(MessageCompleted(message_id="m", text="hi"), RawSpan("stdout", 3, 9))
    events.commit()
    (event,) = written(journal)
    assert event == {
        "executorCursor": 1, "runId": "run_1", "attempt": 2, "at": "2026-01-02T03:04:05.678Z", "kind": "message.completed",
        "data": {"messageId": "m", "text": "hi", "final": False},
        "rawRef": {"attempt": 2, "stream": "stdout", "byteFrom": 3, "byteTo": 9},
    }  # fmt: skip
    ExecutorEvent.model_validate(event)


async def test_raw_output_comes_in_order_in_pieces_and_before_the_event(journal: Journal, events: EventLog) -> None:
    events.raw("stdout", b"a" * 100_000)
    events.raw("stderr", b"e")
    events.raw("stdout", b"b")
    events.emit(MessageCompleted(message_id="m", text="x"))
    events.commit()
    *logs, last = written(journal)
    assert last["kind"] == "message.completed"
    assert [(log["data"]["stream"], log["data"]["byteFrom"]) for log in logs] == [
        ("stdout", 0), ("stdout", 65536), ("stdout", 100_000), ("stderr", 0),
    ]  # fmt: skip
    whole = b"".join(base64.b64decode(log["data"]["base64"]) for log in logs if log["data"]["stream"] == "stdout")
    assert whole == b"a" * 100_000 + b"b"


async def test_deltas_are_joined_per_message_and_flushed_by_any_other_event(journal: Journal, events: EventLog) -> None:
    for text in "abc":
        events.emit(MessageDelta(message_id="m", text=text), RawSpan("stdout", ord(text), ord(text) + 1))
        events.emit(ReasoningDelta(message_id="r", text=text.upper()))
    events.emit(Diagnostic(code="c", message="m"))
    events.commit()
    told = [(event["kind"], event["data"].get("text")) for event in written(journal)]
    assert told == [
        ("message.delta", "a"), ("reasoning.delta", "A"), ("message.delta", "bc"), ("reasoning.delta", "BC"),
        ("diagnostic", None),
    ]  # fmt: skip
    assert written(journal)[2]["rawRef"] == {"attempt": 2, "stream": "stdout", "byteFrom": 98, "byteTo": 100}


async def test_a_delta_never_overtakes_what_was_said_before_it(journal: Journal, events: EventLog) -> None:
    events.emit(ReasoningDelta(message_id="r", text="think 1"))
    events.emit(ReasoningDelta(message_id="r", text="think 2"))
    events.emit(MessageDelta(message_id="m", text="say 1"))
    events.commit()
    assert [event["data"]["text"] for event in written(journal)] == ["think 1", "think 2", "say 1"]


async def test_deltas_that_are_much_text_do_not_wait_for_their_time(
    journal: Journal, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.emit(MessageDelta(message_id="m", text="first"))
    monkeypatch.setattr(event_log, "COALESCE_SECONDS", 3600)
    pieces = [letter * (event_log.MAX_PENDING_TEXT // 4) for letter in "abcde"]
    for text in pieces:
        events.emit(MessageDelta(message_id="m", text=text))
    events.commit()
    assert [event["data"]["text"] for event in written(journal)] == ["first", "".join(pieces[:4])]
    events.end(ENDED)
    assert [event["data"].get("text") for event in written(journal)] == ["first", "".join(pieces[:4]), pieces[4], None]


async def test_a_pending_delta_and_pending_output_are_written_soon_by_themselves(journal: Journal, events: EventLog) -> None:
    events.emit(MessageDelta(message_id="m", text="a"))
    events.emit(MessageDelta(message_id="m", text="b"))
    events.raw("stdout", b"raw")
    events.commit()
    async with asyncio.timeout(5):
        while journal.count < 3:
            await events.tail.changed(1)
    assert [event["kind"] for event in written(journal)] == ["message.delta", "log", "message.delta"]


async def test_the_end_flushes_everything_and_is_last(journal: Journal, events: EventLog) -> None:
    events.emit(MessageDelta(message_id="m", text="a"))
    events.emit(MessageDelta(message_id="m", text="b"))
    events.raw("stderr", b"x")
    events.end(ENDED)
    assert [event["kind"] for event in written(journal)] == ["message.delta", "log", "message.delta", "attempt.ended"]


@pytest.mark.parametrize("joined_after", range(6))
@pytest.mark.parametrize("resume_from", range(6))
async def test_a_reader_joining_at_any_moment_from_any_cursor_misses_nothing(
    journal: Journal, events: EventLog, joined_after: int, resume_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "BLOCK_BYTES", 200)
    read: list[bytes] = []

    async def follow() -> None:
        follower = events.tail.follow(resume_from)
        while (block := await follower.next(5)) is not None:
            read.append(block)
        await follower.close()

    reader: asyncio.Task[None] | None = None
    for n in range(5):
        if n == joined_after and resume_from <= journal.count:
            reader = asyncio.create_task(follow())
        events.emit(MessageCompleted(message_id="m", text=str(n)))
        events.commit()
        await asyncio.sleep(0)
    events.end(ENDED)
    await (reader or asyncio.create_task(follow()))
    assert b"".join(read) == journal.read(resume_from, 10**9)[0]


async def test_a_reader_is_told_of_a_cut_and_never_of_an_end_that_did_not_come(events: EventLog) -> None:
    events.emit(Diagnostic(code="c", message="m"))
    events.commit()
    follower = events.tail.follow(0)
    assert await follower.next(1)
    assert await follower.next(0.01) == b""
    events.tail.cut()
    with pytest.raises(CutError):
        await follower.next(1)


async def test_a_disk_that_refuses_is_told_once_and_the_end_still_comes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[JournalError] = []
    events = EventLog(journal, lambda: AT, told.append)
    events.emit(Diagnostic(code="first", message="m"))
    events.commit()

    def refuse(_frames: object) -> None:
        raise JournalError("full")

    monkeypatch.setattr(journal, "append", refuse)
    for _ in range(3):
        events.emit(Diagnostic(code="lost", message="m"))
        events.commit()
    events.end(ENDED)
    assert len(told) == 1
    assert [event["kind"] for event in written(journal)] == ["diagnostic", "attempt.ended"]
    follower = events.tail.follow(0)
    assert b"attempt.ended" in (await follower.next(1) or b"") + (await follower.next(1) or b"")
    assert await follower.next(1) is None


def test_half_a_surrogate_pair_does_not_break_the_wire() -> None:
    _kind, text = payload_json(MessageDelta(message_id="m", text="a\ud83d"))
    assert json.loads(text)["text"] == "a\ufffd"


def test_a_payload_is_cut_where_it_can_say_so_and_else_left_out() -> None:
    kind, text = payload_json(ToolCompleted(tool_id="t", name="n", status="completed", output={"x": "y" * MAX_EVENT_BYTES}))
    assert (kind, json.loads(text)["truncated"]) == (Kind.TOOL_COMPLETED, True)
    assert len(text) < MAX_EVENT_BYTES
    kind, text = payload_json(PlanUpdated(items=[PlanItem(text="x" * MAX_EVENT_BYTES)]))
    assert (kind, json.loads(text)["code"]) == (Kind.DIAGNOSTIC, "event_too_large")


def test_the_last_word_keeps_its_kind_however_large_it_is() -> None:
    large = "\x00" * MAX_EVENT_BYTES
    ended = AttemptEnded(outcome=AttemptOutcome.ERROR, result=large, error_message=large, stderr_tail="x" * 4096)
    kind, text = payload_json(ended)
    assert kind is Kind.ATTEMPT_ENDED
    assert json.loads(text)["outcome"] == "error"
