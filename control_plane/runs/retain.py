"""Retention: what finished runs left goes at its time, in every replica's sweep but in one at a time, never in a read path.

Raw output goes before events and events before the run; a run's last event goes with the run, so a reader always learns how it
ended. Workspaces are deleted by their executors, on our word and only on it: here is known whether a run still needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from control_plane.domain.retention import DAY_SECONDS, Keep
from control_plane.manager_client import ManagerClient
from control_plane.storage.retention import (
    DELETED_RUNS_A_BATCH,
    THE_FLEET,
    LeftWorkspace,
    NotOurTurnError,
    RetentionStore,
)
from shared.contracts.provider_runs import ForgetWorkspace, LeashQuote, RenewLeash
from shared.errors import RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("retain")

BATCHES_A_SWEEP = 500  # the rest is the next sweep's
PAUSE_SECONDS = 0.05  # between two batches: the database has other work
UNTOUCHED_SECONDS = 3600.0  # of a run that ended a moment ago nothing goes for its weight: it may be read right now
TELL_AGAIN_SECONDS = 60.0
GIVE_UP_SECONDS = 30 * DAY_SECONDS
ASK_SECONDS = 4.0
_NO_QUOTE = LeashQuote(instance="", clock_ms=0)
_T = TypeVar("_T")
_NOT_HEARD = (RunyardError, NeverSentError, UnknownOutcomeError)


@dataclass(frozen=True, slots=True)
class Retain:
    """``run`` is the loop; one sweep is ``await retain()``. ``default`` holds for apps whose record says nothing."""

    store: RetentionStore
    manager: ManagerClient
    default: Keep
    sweep_every: float
    pause: float = PAUSE_SECONDS
    untouched: float = UNTOUCHED_SECONDS

    async def run(self) -> None:
        """Until cancelled; a sweep that fails is followed by the next."""
        while True:
            await asyncio.sleep(self.sweep_every)
            try:
                await self()
            except RunyardError as error:
                log.warning("retain.failed", reason=error.detail)

    async def __call__(self) -> None:
        """One sweep; ends early where another replica is at it."""
        try:
            await self._sweep()
        except NotOurTurnError:
            log.debug("retain.not_our_turn")

    async def _sweep(self) -> None:
        left = _Batches(self.pause)
        if await self.store.is_wanted(self.default):
            await left.while_more(self.store.weigh)
            keeps = await self.store.keeps(self.default)
            for app_id, keep in keeps.items():
                if keep.lets_go:
                    await self._trim(left, app_id, keep)
            for app_id, keep in keeps.items():
                await self._delete_runs(left, app_id, keep, keeps)
        await self._tell()

    async def _trim(self, left: _Batches, app_id: str, keep: Keep) -> None:
        """Batch by batch: what is marked is deleted before more is."""
        for what, seconds in (("output", keep.output_seconds), ("events", keep.events_seconds)):
            while seconds is not None and left and (marked := await self.store.mark_old(what, app_id, seconds)):
                await self._delete_marked(left)
                log.info("retain.trimmed", app_id=app_id, what=what, runs=marked)
        while keep.bytes and left and (marked := await self.store.mark_heavy(app_id, keep.bytes, self.untouched)):
            await self._delete_marked(left)
            log.info("retain.made_room", app_id=app_id, runs=marked)
        await self._delete_marked(left)  # also what an earlier sweep left undone

    async def _delete_marked(self, left: _Batches) -> None:
        await left.while_more(self.store.delete_output)
        await left.while_more(self.store.delete_events)

    async def _delete_runs(self, left: _Batches, app_id: str, keep: Keep, keeps: Mapping[str, Keep]) -> None:
        seconds = keep.runs_seconds
        if seconds is not None:
            deleted = await left.while_full(lambda: self.store.delete_runs(app_id, seconds, keeps), DELETED_RUNS_A_BATCH)
            if deleted:
                log.info("retain.deleted", app_id=app_id, runs=deleted)

    # ---- workspaces ----

    async def _tell(self) -> None:
        """Every executor that can be reached, of the workspaces nobody needs any more."""
        if not await self.store.has_left():
            return
        await self.store.give_up_left(GIVE_UP_SECONDS)
        try:
            fleet = (await self.manager.executors()).items
        except _NOT_HEARD as error:
            log.info("retain.no_fleet", reason=str(error))
            return
        reachable = [each.state.executor_id for each in fleet if each.reachable and each.state is not None]
        for place in await self.store.take_left(reachable, TELL_AGAIN_SECONDS) if reachable else ():
            at = reachable[0] if place.executor_id == THE_FLEET else place.executor_id
            try:
                await self._forget(place, at)
            except _NOT_HEARD as error:
                log.info("retain.not_forgotten", executor_id=at, workspace=place.key, reason=str(error))

    async def _forget(self, place: LeftWorkspace, executor_id: str) -> None:
        """The executor's clock is read before we look whether a run needs the workspace: a word that was long on its way is
        refused there, for what we saw may not hold any more."""
        read = await self.manager.renew(executor_id, RenewLeash(quote=_NO_QUOTE, attempts=[]), ASK_SECONDS)
        if not await self.store.is_left(place.key):
            return
        request = ForgetWorkspace(quote=LeashQuote(instance=read.instance, clock_ms=read.clock_ms), run_ids=list(place.run_ids))
        answer = await self.manager.forget(executor_id, place.key, request)
        log.info("retain.forgotten", executor_id=executor_id, workspace=place.key, status=answer.status)
        if answer.status != "in_use":
            await self.store.settle_left(place)


class _Batches:
    """How many more batches a sweep may take, with a pause after each."""

    def __init__(self, pause: float) -> None:
        self._left = BATCHES_A_SWEEP
        self._pause = pause

    def __bool__(self) -> bool:
        return self._left > 0

    async def while_full(self, step: Callable[[], Awaitable[int]], full: int) -> int:
        """Repeat a step until it finds less than a batch. Returns what all of them found."""
        found = 0
        while self:
            batch = await self._took(step())
            found += batch
            if batch < full:
                break
        return found

    async def while_more(self, step: Callable[[], Awaitable[bool]]) -> None:
        while self and await self._took(step()):
            pass

    async def _took(self, step: Awaitable[_T]) -> _T:
        self._left -= 1
        done = await step
        await asyncio.sleep(self._pause)
        return done
