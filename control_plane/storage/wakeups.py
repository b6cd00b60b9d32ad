"""Hints between replicas by LISTEN/NOTIFY: one connection a process. A hint may be lost; polling is the truth.

No transaction of the stores notifies: NOTIFY holds one lock of the whole server until its commit is on the disk, so commits that
notify wait for each other (ADR 0013). What was committed is told here, after it, gathered, by commits that wait for no disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import asyncpg
import structlog

from control_plane.domain.recording import Change
from control_plane.storage.failures import LOST_CONNECTION

log = structlog.get_logger("wakeups")

_MAX_PAYLOAD = 7_900
_MAX_UNTOLD = 4_096  # hints that wait while the database is away; the rest is found by polling
_GATHER_SECONDS = 0.005
_RECONNECT_SECONDS = 1.0
_PROBE_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_SESSION = {"application_name": "runyard-wakeups", "synchronous_commit": "off"}
_TELL = "SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS told (channel, payload)"


class Channel(StrEnum):
    EVENTS = "runyard_events"  # lines of «run id, last cursor»
    WORK = "runyard_work"  # something waits to be claimed
    INTENTS = "runyard_intents"  # the id of a run with a stop, a reply or a message


Ear = Callable[[str], None]
Tell = Callable[[Channel, str], None]  # after the commit it tells of; never waits, never fails


def nobody(_channel: Channel, _payload: str) -> None:
    """Tells no one: whoever polls finds out."""


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


class Wakeups:
    """What this process tells the other replicas, and hears of them; it reconnects for ever and says so."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._ears: Mapping[Channel, Ear] = {}
        self._heads: dict[str, int] = {}
        self._hints: dict[tuple[Channel, str], None] = {}
        self._untold = asyncio.Event()

    def hear(self, ears: Mapping[Channel, Ear]) -> None:
        """Before ``run``. An ear hears every payload of its channel, and after each (re)connection "": look for yourself."""
        self._ears = ears

    # ---- telling ----

    def tell(self, channel: Channel, payload: str) -> None:
        """Our own ear hears it at once, the other replicas some milliseconds later."""
        if channel in self._ears:
            self._ears[channel](payload)
        if len(self._hints) < _MAX_UNTOLD:
            self._hints[channel, payload] = None
        self._untold.set()

    def committed(self, changes: Sequence[Change]) -> None:
        """How far runs have come. Readers of this process were told with the events themselves."""
        for change in changes:
            if len(self._heads) < _MAX_UNTOLD:
                self._heads[change.run_id] = change.last_cursor
            if change.stop_reason is not None:
                self.tell(Channel.INTENTS, change.run_id)
        self._untold.set()

    def _gathered(self) -> list[tuple[Channel, str]]:
        heads, self._heads = self._heads, {}
        hints, self._hints = self._hints, {}
        self._untold.clear()
        return [*hints, *((Channel.EVENTS, payload) for payload in announcement(heads.items()))]

    # ---- the connection ----

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._listen()
            except (*LOST_CONNECTION, asyncpg.PostgresError) as error:
                log.warning("wakeups.lost", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=_ANSWER_SECONDS, server_settings=_SESSION)
        try:
            for channel in self._ears:
                await connection.add_listener(channel, self._heard)
            for ear in self._ears.values():
                ear("")
            while not connection.is_closed():
                await self._pass_on(connection)
        finally:
            connection.terminate()

    async def _pass_on(self, connection: Any) -> None:
        """The first hint at once, what follows closely together. In silence a probe: a dead peer says nothing by itself."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._untold.wait()
        except TimeoutError:
            pass
        begun = time.monotonic()
        hints = self._gathered()
        await connection.execute(_TELL, [channel.value for channel, _ in hints], [payload for _, payload in hints])
        await asyncio.sleep(max(0.0, begun + _GATHER_SECONDS - time.monotonic()))

    def _heard(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        if pid != connection.get_server_pid():
            self._ears[Channel(channel)](str(payload))
