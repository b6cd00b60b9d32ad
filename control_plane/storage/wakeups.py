"""Hints between replicas by LISTEN/NOTIFY: one listener a process. A hint may be lost; polling is the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import asyncpg
import structlog

log = structlog.get_logger("wakeups")

_MAX_PAYLOAD = 7_900
_RECONNECT_SECONDS = 1.0
_PROBE_SECONDS = 10.0


class Channel(StrEnum):
    EVENTS = "runyard_events"  # lines of «run id, last cursor»
    WORK = "runyard_work"  # something waits to be claimed
    INTENTS = "runyard_intents"  # the id of a run with a stop, a reply or a message


def announcement(heads: Iterable[tuple[str, int]]) -> Iterator[str]:
    """The payloads that tell how far runs have come; a payload has a limit."""
    lines: list[str] = []
    size = 0
    for run_id, cursor in heads:
        line = f"{run_id} {cursor}"
        if size + len(line) > _MAX_PAYLOAD:
            yield "\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield "\n".join(lines)


def heads_of(payload: str) -> Iterator[tuple[str, int]]:
    for line in payload.split("\n"):
        run_id, _, cursor = line.partition(" ")
        if cursor.isdigit():
            yield run_id, int(cursor)


class Listener:
    """One connection that listens for this process; it reconnects for ever and says so."""

    def __init__(self, dsn: str, ears: Mapping[Channel, Callable[[str], None]]) -> None:
        self._dsn = dsn
        self._ears = ears

    async def run(self) -> None:
        """Until cancelled. After each (re)connection every ear is called once with "": look for yourself."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("wakeups.lost", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5)
        try:
            for channel in self._ears:
                await connection.add_listener(channel, self._heard)
            for ear in self._ears.values():
                ear("")
            while not connection.is_closed():
                await asyncio.sleep(_PROBE_SECONDS)
                async with asyncio.timeout(5):
                    await connection.execute("SELECT 1")  # a dead peer says nothing by itself
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._ears[Channel(channel)](str(payload))
