"""What an attempt leaves on disk: its SSE frames exactly as they are streamed, a head written first and an end written last.

``<journal>/<runId>/<attempt>/{start.json, frames.sse, ended.json}``. It survives the executor's process, not the machine's
power: nothing is synced, for an executor that lost its machine has lost its engines too. It knows no payloads.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

SCAN_BYTES = 1024 * 1024
FRAME_END = b"\n\n"
_FRAME_ID = re.compile(rb"id: (\d+)\n")


class JournalError(Exception):
    """The disk refused a write; what was to be written is not in the journal, and no part of it."""


class JournalHead(msgspec.Struct, rename="camel", frozen=True):
    """``start.json``: who started what, where. No prompt, no environment, no secret."""

    run_id: str
    attempt: int
    provider: str
    executor_id: str
    instance: str
    started_at: str
    workspace: str
    warnings: list[str] = msgspec.field(default_factory=list[str])


class JournalEnd(msgspec.Struct, rename="camel", frozen=True):
    """``ended.json``: the payload of the last frame, and what the list of attempts shows."""

    last_cursor: int
    engine_session: str | None
    payload: msgspec.Raw


class Journal:
    """The frames of one attempt, numbered densely from 1. One writer; any number of readers by cursor."""

    def __init__(self, folder: Path, head: JournalHead) -> None:
        self.folder = folder
        self.head = head
        self._offsets: array[int] = array("Q", [0])  # [n] is where frame n ends
        self._said_count: int | None = None  # of an ended one that nobody has read in this life: not loaded yet
        self._unwritten: list[bytes] = []  # the last words of an attempt whose disk is full; kept in memory only
        self._fd: int | None = None

    @classmethod
    def create(cls, root: Path, head: JournalHead) -> Journal:
        """Raises ``JournalError``, and leaves nothing behind then."""
        folder = folder_of(root, head.run_id, head.attempt)
        shutil.rmtree(folder, ignore_errors=True)  # half of one, from a process that ended while making it
        try:
            folder.mkdir(mode=0o700, parents=True)
            journal = cls(folder, head)
            (folder / "start.json").write_bytes(msgspec.json.encode(head))
            journal._fd = os.open(folder / "frames.sse", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise JournalError(f"cannot make the journal: {error.strerror}") from error
        return journal

    @property
    def count(self) -> int:
        """The cursor of the last frame."""
        if self._said_count is not None:
            return self._said_count
        return len(self._offsets) - 1 + len(self._unwritten)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._offsets[-1]

    def append(self, frames: Sequence[bytes]) -> None:
        """All or none. Raises ``JournalError``."""
        if self._unwritten:
            raise JournalError("the disk had been full before")
        begin = self._offsets[-1]
        try:
            _write_at(self._open(), b"".join(frames), begin)
        except OSError as error:
            self._cut_back(begin)
            raise JournalError(f"cannot write the journal: {error.strerror}") from error
        for frame in frames:
            begin += len(frame)
            self._offsets.append(begin)

    def append_last(self, frame: bytes) -> None:
        """The attempt's last frame; never fails: without room on the disk it lives as long as this process."""
        try:
            self.append([frame])
        except JournalError:
            self._unwritten.append(frame)

    def read(self, after: int, max_bytes: int) -> tuple[bytes, int]:
        """Whole frames after ``after``, at least one where there is one, and the cursor of the last of them."""
        if self._said_count is not None:
            self.load()
        on_disk = len(self._offsets) - 1
        if after < on_disk:
            begin = self._offsets[after]
            last = max(after + 1, bisect_right(self._offsets, begin + max_bytes) - 1)
            return _read_at(self._open(), begin, self._offsets[last] - begin), last
        rest = self._unwritten[after - on_disk :]
        return b"".join(rest), after + len(rest)

    def close(self) -> None:
        """Give back the file; the next call opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def write_end(self, engine_session: str | None, payload: str) -> None:
        """Only a note that spares the next start a scan: a full disk costs no more than that."""
        if self._unwritten:
            return
        end = JournalEnd(self.count, engine_session, msgspec.Raw(payload.encode()))
        try:
            (self.folder / "ended.json").write_bytes(msgspec.json.encode(end))
        except OSError:
            (self.folder / "ended.json").unlink(missing_ok=True)

    def read_end(self) -> JournalEnd | None:
        """The note of an ended one, which then needs no ``load``; None when there is none. Raises ``OSError``."""
        try:
            end = msgspec.json.decode((self.folder / "ended.json").read_bytes(), type=JournalEnd)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        self._said_count = end.last_cursor
        return end

    @property
    def is_unread(self) -> bool:
        """An ended one of an earlier life that must be indexed before it is read: a matter of seconds when it is large."""
        return self._said_count is not None

    def load(self) -> None:
        """Find the frames of a journal that an earlier process wrote; a torn last one is cut off. Raises ``OSError``."""
        self.take_index(self.scan())

    def scan(self) -> array[int]:
        """Where its whole frames end, for ``take_index``. Changes nothing, so it may run in a thread. Raises ``OSError``."""
        offsets = array("Q", [0])
        fd = os.open(self.folder / "frames.sse", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for number, (begin, frame) in enumerate(frames_of(fd), start=1):
                found = _FRAME_ID.match(frame)
                if found is None or int(found[1]) != number:
                    break
                offsets.append(begin + len(frame))
        finally:
            os.close(fd)
        return offsets

    def take_index(self, offsets: array[int]) -> None:
        """What ``scan`` found; anything behind its last whole frame is cut off. Raises ``OSError``."""
        os.ftruncate(self._open(), offsets[-1])
        self._offsets, self._said_count = offsets, None

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.parent.rmdir()
        except OSError:
            pass  # other attempts of the run stand in it

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self.folder / "frames.sse", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self._fd

    def _cut_back(self, size: int) -> None:
        try:
            os.ftruncate(self._open(), size)
        except OSError:
            pass  # the next load cuts it


def folder_of(root: Path, run_id: str, attempt: int) -> Path:
    return root / run_id / str(attempt)


def found_folders(root: Path) -> list[Path]:
    """Every folder below ``root`` that may be a journal's."""
    return [start.parent for start in sorted(root.glob("*/*/start.json"))]


def journal_in(folder: Path, root: Path) -> Journal | None:
    """None when that is no journal, or half of one. Raises ``OSError`` when nobody can say."""
    try:
        head = msgspec.json.decode((folder / "start.json").read_bytes(), type=JournalHead)
        is_one = folder == folder_of(root, head.run_id, head.attempt) and stat.S_ISREG(os.lstat(folder / "frames.sse").st_mode)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return Journal(folder, head) if is_one else None


def frames_of(fd: int) -> Iterator[tuple[int, bytes]]:
    """Where each whole frame begins, and the frame."""
    position, begin, rest = 0, 0, b""
    while block := os.pread(fd, SCAN_BYTES, position):
        position += len(block)
        *whole, rest = (rest + block).split(FRAME_END)
        for frame in whole:
            yield begin, frame + FRAME_END
            begin += len(frame) + len(FRAME_END)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _read_at(fd: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.pread(fd, size, offset)
        if not part:
            raise JournalError("the journal is shorter than its index")
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)
