"""The dispatcher: claims runs that need a driver and owns the drivers of this process, with what they have to deliver.

A hint wakes it, a poll makes it correct. Several dispatchers may run: a claim is one statement and never gives a run twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import Move
from control_plane.domain.run import Lease
from control_plane.runs.deliver import DeliverIntents
from control_plane.runs.drive import DriveRun
from control_plane.runs.leases import Leases
from control_plane.runs.record import LeaseLost, Recorder
from control_plane.storage.run_log import Refused
from control_plane.storage.runs import RunStore
from shared.errors import ErrorCode, RunyardError

log = structlog.get_logger("dispatch")

POLL_SECONDS = 1.0
CLAIM_AT_ONCE = 16
CRASHES_ALLOWED = 3
CRASH_PAUSE_SECONDS = 2.0
STORAGE_PAUSE_SECONDS = 0.5
HAND_BACK_SECONDS = 2.0


class Dispatcher:
    """``run`` until cancelled; then every driver lets go of its run, and no engine is touched."""

    def __init__(
        self, runs: RunStore, drive: DriveRun, deliver: DeliverIntents, leases: Leases, recorder: Recorder, capacity: int
    ) -> None:
        self._runs = runs
        self._drive = drive
        self._deliver = deliver
        self._leases = leases
        self._recorder = recorder
        self._room = drive.room
        self._capacity = capacity
        self._lease_seconds = leases.seconds
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._delivering: set[str] = set()
        self._crashes: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._room.on_place = self._wake.set
        self._intent = asyncio.Event()
        self._draining = False

    # ---- hints ----

    def work_heard(self, _payload: str) -> None:
        self._wake.set()

    def intent_heard(self, payload: str) -> None:
        if not payload or payload in self._driven:
            self._intent.set()

    def drain(self) -> None:
        """Claim nothing from now on, and let go of what is driven here: another replica goes on at once.

        Said again it changes nothing: a second cancellation would break off the handing over.
        """
        if self._draining:
            return
        self._draining = True
        asyncio.get_running_loop().call_soon(self._let_go)  # a driver that was just made has begun by then, and hears of it

    def _let_go(self) -> None:
        for driver in self._driven.values():
            driver.cancel()

    async def handed_over(self) -> None:
        """After ``drain``: until every driver has let go of its run, within a bound."""
        if self._driven:
            await asyncio.wait(self._driven.values(), timeout=HAND_BACK_SECONDS)

    @property
    def driven(self) -> int:
        """How many runs are driven here."""
        return len(self._driven)

    @property
    def draining(self) -> bool:
        return self._draining

    # ---- the two loops ----

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver_intents(tasks))
            while True:
                claimed = await self._claim(tasks)
                if claimed < CLAIM_AT_ONCE:
                    await self._pause()

    async def _pause(self) -> None:
        """Until somebody says that there is work, or room may have come for what waits for it."""
        opening = self._room.next_opening()
        try:
            async with asyncio.timeout(POLL_SECONDS if opening is None else min(POLL_SECONDS, opening)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _claim(self, tasks: asyncio.TaskGroup) -> int:
        free = min(CLAIM_AT_ONCE, self._capacity - len(self._driven))
        if free <= 0 or self._draining:
            return 0
        try:
            leases = await self._runs.claim(free, self._lease_seconds, self._driven, self._room.closed())
        except RunyardError as error:
            log.warning("dispatch.no_claim", reason=error.detail)
            return 0
        for lease in leases:
            if self._draining:  # meanwhile
                await self._hand_back(lease, 0)
            else:
                self._begin(tasks, lease)
        return len(leases)

    def _begin(self, tasks: asyncio.TaskGroup, lease: Lease) -> None:
        task = tasks.create_task(self._one(lease))
        self._driven[lease.run_id] = task
        self._room.asks(lease.run_id)
        self._leases.hold(lease, on_lost=task.cancel)

    async def _deliver_intents(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._intent.wait()
            except TimeoutError:
                pass
            self._intent.clear()
            try:
                waiting = await self._runs.with_intents(list(self._driven)) if self._driven else set[str]()
            except RunyardError as error:
                log.warning("dispatch.no_intents", reason=error.detail)
                continue
            for run_id in waiting - self._delivering:
                self._delivering.add(run_id)
                tasks.create_task(self._deliver_one(run_id))

    async def _deliver_one(self, run_id: str) -> None:
        try:
            await self._deliver(run_id)
        except Exception as error:
            log.error("deliver.failed", run_id=run_id, exc_info=error)
        finally:
            self._delivering.discard(run_id)

    # ---- one driver ----

    async def _one(self, lease: Lease) -> None:
        """The outermost frame of a driver: whatever happens, the run is over, handed back, or somebody else's."""
        try:
            await self._drive_through(lease)
            self._crashes.pop(lease.run_id, None)
        except LeaseLost:
            self._crashes.pop(lease.run_id, None)
            log.info("drive.lease_lost", run_id=lease.run_id)
        except asyncio.CancelledError:
            await self._hand_back(lease, 0)
            raise
        except Exception as error:  # noqa: BLE001 - the outermost loop of a driver: it logs and goes on
            await self._crashed(lease, error)
        finally:
            self._room.is_placed(lease.run_id)
            self._leases.drop(lease)
            self._driven.pop(lease.run_id, None)
            self._wake.set()

    async def _drive_through(self, lease: Lease) -> None:
        """Drive; while the database is away, wait with the lease in hand."""
        while True:
            try:
                await self._drive(lease)
                return
            except RunyardError as error:
                if error.code is not ErrorCode.STORAGE_UNAVAILABLE:
                    raise
                log.warning("drive.waiting_for_storage", run_id=lease.run_id, reason=error.detail)
                await asyncio.sleep(STORAGE_PAUSE_SECONDS)

    async def _hand_back(self, lease: Lease, after_seconds: float) -> None:
        """Best effort: who does not hear it claims the run when the lease lapses."""
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._runs.let_go(lease, after_seconds)
        except (RunyardError, TimeoutError) as error:
            log.info("drive.not_handed_back", run_id=lease.run_id, reason=str(error))

    async def _crashed(self, lease: Lease, error: Exception) -> None:
        """A bug of ours, or rows the database refuses: try again a few times, then end the run and say so."""
        log.error("drive.failed", run_id=lease.run_id, exc_info=error)
        self._crashes[lease.run_id] += 1
        if not isinstance(error, Refused) and self._crashes[lease.run_id] < CRASHES_ALLOWED:
            await self._hand_back(lease, CRASH_PAUSE_SECONDS)
            return
        del self._crashes[lease.run_id]
        try:
            await self._recorder.record(lease, [Move(Signal.GIVEN_UP, ErrorCode.INTERNAL, type(error).__name__)])
        except (LeaseLost, Refused) as refusal:
            log.error("drive.not_ended", run_id=lease.run_id, reason=str(refusal))
