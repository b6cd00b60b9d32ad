"""What an executor finds of its earlier lives."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from executor.attempts import registry as attempts
from executor.attempts.registry import Attempt, recovered
from executor.events.event_log import EventLog
from executor.events.journal import Journal, JournalHead
from shared.contracts.events import AttemptEnded, AttemptOutcome, MessageCompleted, SessionStarted
from shared.sse import CutError

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def never(error: Exception) -> None:
    raise AssertionError(error)


@pytest.fixture
async def log(tmp_path: Path) -> EventLog:
    journal = Journal.create(tmp_path, JournalHead("run_1", 1, "scripted", "e", "i", "2026-01-01T00:00:00+00:00", "w"))
    log = EventLog(journal, lambda: AT, never)
    log.emit(SessionStarted(engine_session="first"))
    log.emit(MessageCompleted(message_id="m", text="event: attempt.ended\n"))
    log.emit(SessionStarted(engine_session="second"))
    log.commit()
    return log


def found(tmp_path: Path) -> Attempt:
    (attempt,) = recovered(tmp_path, tmp_path / "workspaces", lambda: AT)
    assert attempt.ended is not None
    assert attempt.engine_session == "second"
    return attempt


async def test_an_attempt_without_an_end_is_lost_and_told_so_once(log: EventLog, tmp_path: Path) -> None:
    for _ in range(2):
        attempt = found(tmp_path)
        assert (attempt.ended.outcome if attempt.ended else None) is AttemptOutcome.LOST
        assert attempt.journal.count == 4


@pytest.mark.parametrize("is_noted", [True, False])
async def test_an_end_is_found_with_its_note_and_without(log: EventLog, tmp_path: Path, is_noted: bool) -> None:
    ended = AttemptEnded(outcome=AttemptOutcome.SUCCESS, result={"a": [1]})
    log.end(ended)
    if is_noted:
        log.tail.journal.write_end("second", ended.wire_json())
    assert found(tmp_path).ended == ended


async def test_an_old_journal_is_indexed_off_the_loop_and_read_by_all_who_wait(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = AttemptEnded(outcome=AttemptOutcome.SUCCESS)
    log.end(ended)
    log.tail.journal.write_end("second", ended.wire_json())
    tail = found(tmp_path).tail
    real, threads = Journal.scan, list[threading.Thread]()

    def scan(journal: Journal) -> object:
        threads.append(threading.current_thread())
        return real(journal)

    monkeypatch.setattr(Journal, "scan", scan)
    followers = [tail.follow(0), tail.follow(3), tail.follow(1)]
    leaving = asyncio.ensure_future(followers[2].next(1))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await followers[2].close()
    whole, rest = await asyncio.gather(followers[0].next(1), followers[1].next(1))
    assert whole is not None
    assert rest is not None
    assert whole.endswith(rest)
    assert b"attempt.ended" in rest
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_journal_that_is_gone_before_it_is_read_is_a_cut(log: EventLog, tmp_path: Path) -> None:
    ended = AttemptEnded(outcome=AttemptOutcome.SUCCESS)
    log.end(ended)
    log.tail.journal.write_end("second", ended.wire_json())
    attempt = found(tmp_path)
    follower = attempt.tail.follow(0)
    attempt.journal.remove()
    with pytest.raises(CutError):
        await follower.next(1)


async def test_a_journal_that_could_not_be_read_once_is_whole_for_the_next_reader(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = AttemptEnded(outcome=AttemptOutcome.SUCCESS)
    log.end(ended)
    log.tail.journal.write_end("second", ended.wire_json())
    tail = found(tmp_path).tail
    fail_once(monkeypatch, "scan")
    with pytest.raises(CutError):
        await tail.follow(0).next(1)
    again = await tail.follow(0).next(1)
    assert again is not None
    assert b"attempt.ended" in again


@pytest.mark.parametrize("call", ["read_end", "load", "read"])
async def test_one_error_of_the_disk_loses_no_attempt_at_a_start(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    ended = AttemptEnded(outcome=AttemptOutcome.SUCCESS)
    log.end(ended)
    fail_once(monkeypatch, call)
    monkeypatch.setattr(attempts, "NEXT_TRY_SECONDS", 0.0)
    assert found(tmp_path).ended == ended


async def test_a_journal_that_cannot_be_read_is_named_and_left_for_the_next_start(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_journal: Journal) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log.end(AttemptEnded(outcome=AttemptOutcome.SUCCESS))
    monkeypatch.setattr(attempts, "NEXT_TRY_SECONDS", 0.0)
    with monkeypatch.context() as broken, capture_logs() as said:
        broken.setattr(Journal, "load", none_left)
        assert list(recovered(tmp_path, tmp_path / "workspaces", lambda: AT)) == []
    assert {(each["event"], each["folder"]) for each in said} == {("journal.not_read", "run_1/1")}
    assert found(tmp_path).ended is not None


def fail_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The next call of that method of a journal finds the machine out of files."""
    real: Callable[..., object] = getattr(Journal, name)

    def fails(journal: Journal, *given: object) -> object:
        monkeypatch.setattr(Journal, name, real)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Journal, name, fails)
