"""The files of a workspace on their way out: one as it is, or all in one zip. Block by block, whatever their size.

Secrets we know are replaced by value, lengths kept: in every file, because a secret in a binary is one too. An engine may be at
work meanwhile: a file that goes is left out of an archive, and one that shrinks cuts its own download.
"""

from __future__ import annotations

import asyncio
import threading
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, cast

from executor.events.redaction import Redactor
from executor.workspaces.workspace import PlainFile, Workspace
from shared.contracts.provider_runs import WorkspaceFile
from shared.errors import ErrorCode, RunyardError
from shared.sse import CutError

BLOCK_BYTES = 256 * 1024
MAX_BUNDLE_BYTES = 1024 * 1024 * 1024
FAST = 1  # the level: an executor has other work than making archives small
ZIP_EPOCH = datetime(1980, 1, 1)


class Produced:
    """``shared.sse.Blocks`` from a generator that reads files: it runs in a thread, one block at a time.

    ``file``: what it reads from, closed with it, also where it was never begun.
    """

    def __init__(self, source: Generator[bytes], file: PlainFile | None = None) -> None:
        self._source = source
        self._file = file
        self._turn = threading.Lock()

    async def next(self, within: float) -> bytes | None:
        """A slow disk makes a block late; ``within`` is the reader's patience with a peer, and this is none."""
        return await asyncio.to_thread(self._one)

    async def close(self) -> None:
        await asyncio.to_thread(self._finish)

    def _one(self) -> bytes | None:
        with self._turn:
            return next(self._source, None)

    def _finish(self) -> None:
        with self._turn:
            self._source.close()
            if self._file is not None:
                self._file.close()


def one_file(file: PlainFile, secrets: Sequence[str]) -> Generator[bytes]:
    """Its bytes, as many as its size was told. Raises ``CutError`` when there are fewer."""
    left = file.size
    for block in _redacted(file.blocks(BLOCK_BYTES), secrets):
        if piece := block[:left]:
            yield piece
        left -= len(piece)
        if not left:
            return
    raise CutError("the file has shrunk")


def bundle_of(workspace: Workspace) -> list[WorkspaceFile]:
    """What an archive of all files holds. Raises ``payload_too_large``."""
    listed = workspace.files()
    if listed.next_cursor is not None:
        raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"more than {len(listed.items)} files: take them one by one")
    if sum(file.bytes for file in listed.items) > MAX_BUNDLE_BYTES:
        raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"more than {MAX_BUNDLE_BYTES} bytes: take the files one by one")
    return listed.items


def zipped(workspace: Workspace, files: Iterable[WorkspaceFile], secrets: Sequence[str]) -> Generator[bytes]:
    """One zip of these files, made as it is read."""
    sink = _Sink()
    left = MAX_BUNDLE_BYTES
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_DEFLATED, compresslevel=FAST) as archive:
        for listed in files:
            try:
                file = workspace.open(listed.path)
            except RunyardError:
                continue
            with file, archive.open(_entry(listed), "w", force_zip64=True) as entry:
                for block in _redacted(file.blocks(BLOCK_BYTES), secrets):
                    left -= len(block)
                    if left < 0:
                        raise CutError("the files have grown beyond what an archive may hold")
                    entry.write(block)
                    if sink.size >= BLOCK_BYTES:
                        yield sink.take()
    yield sink.take()


def _redacted(blocks: Iterator[bytes], secrets: Sequence[str]) -> Iterator[bytes]:
    redactor = Redactor(secrets)
    for block in blocks:
        yield redactor.feed(block)
    yield redactor.rest()


def _entry(listed: WorkspaceFile) -> zipfile.ZipInfo:
    at = max(listed.modified_at.replace(tzinfo=None), ZIP_EPOCH)
    entry = zipfile.ZipInfo(listed.path, (min(at.year, 2107), at.month, at.day, at.hour, at.minute, at.second))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


class _Sink:
    """What ``zipfile`` writes into: it only appends, and what was written is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        return None

    def take(self) -> bytes:
        taken, self._parts, self.size = b"".join(self._parts), [], 0
        return taken
