"""T14: what an engine's line costs on its way from stdout to a stored envelope."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

from executor.adapters.base import STDOUT, Emit, StartRequest
from executor.adapters.framing import Line, Lines
from executor.adapters.scripted import ScriptedAdapter, ScriptedConversation
from executor.events.event_log import EventLog, RawSpan
from executor.events.journal import Journal, JournalError, JournalHead
from shared.clock import utc_now
from shared.contracts.provider_runs import Message
from tests.bench.kit.ground import Ground
from tests.bench.kit.turns import Arm, Bench, Figures, Target, between, of

FRAMED, DECODED, JOURNALED, NAIVE = "our framing", "framing and adapter", "and into the journal", "json.loads and dumps a line"
LINE_BYTES = 500
CHUNK_BYTES = 64 * 1024


def output(lines: int) -> list[bytes]:
    """Whole messages as an engine prints them, in the pieces a pipe gives."""
    empty = json.dumps({"type": "message", "id": "m1", "text": ""})
    line = json.dumps({"type": "message", "id": "m1", "text": "x" * (LINE_BYTES - len(empty) - 1)}).encode() + b"\n"
    whole = line * lines
    return [whole[start : start + CHUNK_BYTES] for start in range(0, len(whole), CHUNK_BYTES)]


def measured(lines: int, took: float) -> Figures:
    return {"us/line": took / lines * 1e6, "ms/MB": took / (lines * LINE_BYTES / 1e6) * 1e3}


async def framed(chunks: list[bytes], lines: int) -> Figures:
    framing, began, found = Lines(), time.process_time(), 0
    for chunk in chunks:
        found += sum(isinstance(each, Line) for each in framing.feed(STDOUT, chunk))
    assert found == lines
    return measured(lines, time.process_time() - began)


async def decoded(chunks: list[bytes], lines: int) -> Figures:
    conversation, began, found = _conversation(), time.process_time(), 0
    for chunk in chunks:
        found += len(conversation.feed(STDOUT, chunk))
    assert found >= lines
    return measured(lines, time.process_time() - began)


async def journaled(folder: Path, turn: Iterator[int], chunks: list[bytes], lines: int) -> Figures:
    """As the runner does it, without redaction: events numbered, encoded, appended, one write a chunk."""
    head = JournalHead(f"run_{next(turn)}", 1, "scripted", "executor-1", "instance-1", "2026-01-01T00:00:00.000Z", str(folder))
    journal = Journal.create(folder, head)
    log, conversation, began = EventLog(journal, utc_now, _broken), _conversation(), time.process_time()
    for chunk in chunks:
        log.raw(STDOUT, chunk)
        for step in conversation.feed(STDOUT, chunk):
            if isinstance(step, Emit) and step.byte_from is not None and step.byte_to is not None:
                log.emit(step.payload, RawSpan(STDOUT, step.byte_from, step.byte_to))
        log.commit()
    took = time.process_time() - began
    assert journal.count >= lines
    log.tail.end()
    return measured(lines, took)


async def naive(chunks: list[bytes], lines: int) -> Figures:
    began, rest = time.process_time(), b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            json.dumps(json.loads(line))
    return measured(lines, time.process_time() - began)


def _conversation() -> ScriptedConversation:
    request = StartRequest("run_1", 1, "/bin/true", "/tmp", "/tmp", [Message(content="hello")])
    return ScriptedAdapter().start(request)


def _broken(error: JournalError) -> None:
    raise error


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Mapping[str, Arm]]:
    lines = ground.scaled(40_000, 4_000)
    chunks, folder = output(lines), ground.folder()
    yield {
        FRAMED: partial(framed, chunks, lines),
        DECODED: partial(decoded, chunks, lines),
        JOURNALED: partial(journaled, folder, count(1), chunks, lines),
        NAIVE: partial(naive, chunks, lines),
    }


BENCH = Bench(
    name="stdout",
    title="An engine's stdout, lines of 500 bytes",
    opened=opened,
    columns=("us/line", "ms/MB"),
    targets=(
        Target("T14", "CPU of a line to a typed event", of(DECODED, "us/line"), 2, unit="µs"),
        Target("T14", "the same over json.loads and dumps", between(DECODED, NAIVE, "us/line"), 0.25),
    ),
    notes=("CPU of one process, reading from memory. The scripted engine's adapter; a journal on the disk of the machine.",),
)
