from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from executor.events import journal as module
from executor.events.journal import Journal, JournalError, JournalHead, found_folders, journal_in
from shared import sse

HEAD = JournalHead("run_1", 2, "scripted", "exec_1", "inst_1", "2026-01-01T00:00:00+00:00", "w")
FRAMES = [sse.encode(n, "message.completed", b'{"n":%d,"text":"%b"}' % (n, b"x" * n * 10)) for n in range(1, 21)]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal.create(tmp_path, HEAD)
    journal.append(FRAMES[:7])
    journal.append(FRAMES[7:])
    return journal


def found_journals(root: Path) -> list[Journal]:
    found = [journal_in(folder, root) for folder in found_folders(root)]
    return [journal for journal in found if journal is not None]


def reloaded(root: Path) -> Journal:
    (found,) = found_journals(root)
    found.load()
    return found


@pytest.mark.parametrize("after", range(21))
@pytest.mark.parametrize("max_bytes", [1, 200, 1_000_000])
def test_reading_on_from_any_cursor_gives_every_frame_after_it(journal: Journal, after: int, max_bytes: int) -> None:
    blocks, cursor = b"", after
    while cursor < journal.count:
        block, cursor = journal.read(cursor, max_bytes)
        blocks += block
    assert blocks == b"".join(FRAMES[after:])


def test_a_journal_is_found_again_with_all_its_frames(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    again = reloaded(tmp_path)
    assert again.head == HEAD
    assert again.count == 20
    assert again.read(0, 1_000_000) == (b"".join(FRAMES), 20)


@pytest.mark.parametrize("lost", [1, 2, 5, len(FRAMES[-1]) - 1])
def test_a_torn_last_frame_is_cut_off_and_written_over(journal: Journal, tmp_path: Path, lost: int) -> None:
    journal.close()
    path = journal.folder / "frames.sse"
    os.truncate(path, path.stat().st_size - lost)
    again = reloaded(tmp_path)
    assert again.count == 19
    again.append(FRAMES[-1:])
    again.close()
    assert reloaded(tmp_path).read(0, 1_000_000)[0] == b"".join(FRAMES)


def test_what_does_not_belong_at_the_end_is_cut_off(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    with (journal.folder / "frames.sse").open("ab") as file:
        file.write(FRAMES[3])
    assert reloaded(tmp_path).count == 20


def test_frames_larger_than_a_scan_are_found(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEAD)
    large = [sse.encode(n, "k", b"x" * (module.SCAN_BYTES + n)) for n in (1, 2, 3)]
    journal.append(large)
    assert reloaded(tmp_path).read(1, 1)[0] == large[1]


def test_strangers_in_the_folder_are_passed_over(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "what" / "ever").mkdir(parents=True)
    (tmp_path / "what" / "ever" / "start.json").write_text("{")
    (tmp_path / "other" / "2").mkdir(parents=True)
    (tmp_path / "other" / "2" / "start.json").write_bytes((journal.folder / "start.json").read_bytes())
    (tmp_path / "note.txt").write_text("x")
    assert [each.head for each in found_journals(tmp_path)] == [HEAD]


def test_a_disk_that_fills_up_leaves_whole_frames_and_room_for_the_last_word(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[: len(data) // 2], offset)

    monkeypatch.setattr(module.os, "pwrite", half)
    more = sse.encode(21, "k", b"x" * 500)
    with pytest.raises(JournalError, match="No space left"):
        journal.append([more])
    assert journal.count == 20
    last = sse.encode(21, "attempt.ended", b'{"n":21}')
    journal.append_last(last)
    assert journal.count == 21
    assert journal.read(19, 1)[0] == FRAMES[19]
    assert journal.read(20, 1) == (last, 21)
    monkeypatch.undo()
    journal.write_end(None, "{}")
    assert journal.read_end() is None, "the next life must not believe in a last frame that is not on the disk"
    journal.close()
    assert reloaded(tmp_path).count == 20


def test_an_ended_journal_is_loaded_when_it_is_read_first(journal: Journal, tmp_path: Path) -> None:
    journal.write_end("s1", '{"outcome":"success"}')
    journal.close()
    (again,) = found_journals(tmp_path)
    end = again.read_end()
    assert end is not None
    assert (end.engine_session, bytes(end.payload)) == ("s1", b'{"outcome":"success"}')
    assert again.count == 20
    assert again.read(19, 1) == (FRAMES[19], 20)


def test_a_removed_journal_leaves_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.remove()
    assert found_journals(tmp_path) == []
    assert not journal.folder.exists()


def test_a_removed_journal_leaves_no_folder_of_its_run_but_the_other_attempts(journal: Journal, tmp_path: Path) -> None:
    other = Journal.create(tmp_path, JournalHead("run_1", 3, "scripted", "e", "i", "2026-01-01T00:00:00+00:00", "w"))
    journal.remove()
    assert [found.head.attempt for found in found_journals(tmp_path)] == [3]
    other.remove()
    assert list(tmp_path.iterdir()) == []
