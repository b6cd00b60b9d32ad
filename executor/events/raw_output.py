"""Ranges of an engine's raw output, out of the ``log`` frames of its journal. Runs in a thread: it may read all of it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Generator
from pathlib import Path

from executor.events.journal import Journal, frames_of
from shared.contracts.runs import LogRange
from shared.errors import ErrorCode, RunyardError

_LOG = re.compile(rb'id: \d+\nevent: log\ndata: \{[^{]*"data":\{"stream":"([^"]*)","byteFrom":(\d+),"base64":"([^"]*)"')


def read_raw(journal: Journal, stream: str, byte_from: int, byte_to: int) -> LogRange:
    """What there is of [byte_from, byte_to). Raises ``not_found`` when the journal was released meanwhile."""
    found, total = bytearray(), 0
    for frame in _log_frames(journal.folder):
        piece = _LOG.match(frame)
        if piece is None or piece[1] != stream.encode():
            continue
        begin = int(piece[2])
        size = len(piece[3]) // 4 * 3 - piece[3].count(b"=")
        total = begin + size
        if begin < byte_to and total > byte_from:
            found += base64.b64decode(piece[3])[max(byte_from - begin, 0) : byte_to - begin]
    return LogRange(
        run_id=journal.head.run_id,
        attempt=journal.head.attempt,
        stream=stream,
        byte_from=byte_from,
        byte_to=byte_from + len(found),
        total_bytes=total,
        text=found.decode(errors="replace"),
        base64=base64.b64encode(found).decode(),
    )


def _log_frames(folder: Path) -> Generator[bytes]:
    try:
        fd = os.open(folder / "frames.sse", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RunyardError(ErrorCode.NOT_FOUND, "the journal is not here any more") from error
    try:
        for _begin, frame in frames_of(fd):
            yield frame
    finally:
        os.close(fd)
