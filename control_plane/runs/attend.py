"""Attending a living attempt: its frames become news until it has ended or is lost for certain.

Silence is not death: only an attempt whose executor was not heard for longer than a leash is gone, because by then its
executor has ended it by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec
import structlog

from control_plane.domain.bounds import Bounds
from control_plane.domain.lifecycle import Signal
from control_plane.domain.news import FromExecutor, Move
from control_plane.domain.recording import Change
from control_plane.domain.run import DrivenRun, Lease, Placement
from control_plane.manager_client import ManagerClient, was_not_sent
from control_plane.runs.record import WINDOW_ROWS, Recorder
from shared.clock import Monotonic
from shared.contracts.events import AttemptLost
from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, UnknownOutcomeError
from shared.sse import CutError, Frame, FrameReader
from shared.upstream import Upstream

log = structlog.get_logger("attend")


class _Envelope(msgspec.Struct, rename="camel"):
    """The header of an executor's frame; the payload stays bytes."""

    executor_cursor: int
    attempt: int
    at: datetime
    kind: str
    data: msgspec.Raw
    raw_ref: msgspec.Raw = msgspec.Raw()


_ENVELOPE = msgspec.json.Decoder(_Envelope)


class AttemptGone(Exception):
    """The executor says that it does not have the attempt, or not as much of it as is stored."""


class AttendAttempt:
    """One use case: ``await attend(lease, run)`` until the attempt's end is written."""

    def __init__(self, manager: ManagerClient, recorder: Recorder, bounds: Bounds, monotonic: Monotonic) -> None:
        self._manager = manager
        self._recorder = recorder
        self._bounds = bounds
        self._monotonic = monotonic

    async def __call__(self, lease: Lease, run: DrivenRun) -> Change:
        """The change that ended the attempt: by its own last event, or by its loss. Raises ``LeaseLost`` or ``Refused``."""
        assert run.placement is not None
        reading = _Reading(self, lease, run, run.placement)
        try:
            return await reading.to_the_end()
        except AttemptGone as gone:
            return await self.lost(lease, run, str(gone), reading.cursor)

    async def lost(self, lease: Lease, run: DrivenRun, reason: str, executor_cursor: int, never_began: bool = False) -> Change:
        """Write that the attempt is lost. ``never_began``: its executor never had it, and never will."""
        executor_id = run.placement.executor_id if run.placement else None
        event = AttemptLost(executor_id=executor_id, reason=reason, executor_cursor=executor_cursor)
        log.warning("attempt.lost", run_id=run.run_id, attempt=run.attempt, executor_id=executor_id, reason=reason)
        return await self._recorder.record(lease, [Move(Signal.ATTEMPT_LOST, event=event, never_began=never_began)])

    # ---- what a reading uses ----

    async def open(self, run: DrivenRun, placement: Placement, cursor: int) -> Upstream | None:
        """The stream from ``cursor``; None when it could not be had now. Raises ``AttemptGone`` when the executor says so:
        that a manager does not know its executor only means that it cannot be asked."""
        try:
            return await self._manager.stream(placement.executor_id, run.run_id, run.attempt, cursor)
        except RunyardError as error:
            if error.code in (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT) and not was_not_sent(error):
                raise AttemptGone(error.detail) from error
            log.info("attend.not_open", run_id=run.run_id, reason=str(error))
        except (NeverSentError, UnknownOutcomeError) as error:
            log.info("attend.not_open", run_id=run.run_id, reason=str(error))
        return None

    async def answers(self, run: DrivenRun, placement: Placement) -> bool:
        """One probe after a silence."""
        try:
            await self._manager.show(placement.executor_id, run.run_id, run.attempt, self._bounds.probe)
        except (RunyardError, NeverSentError, UnknownOutcomeError):
            return False
        return True

    async def record(self, lease: Lease, news: Sequence[FromExecutor]) -> Change | None:
        """Write in pieces a window can take; the last change, or the one that ended the attempt."""
        change = None
        for start in range(0, len(news), WINDOW_ROWS):
            change = await self._recorder.record(lease, news[start : start + WINDOW_ROWS])
            if change.attempt_over:
                break
        return change

    def now(self) -> float:
        return self._monotonic()

    @property
    def bounds(self) -> Bounds:
        return self._bounds


class _Reading:
    """The state of one attendance: how far it has read, and when it last heard anything."""

    def __init__(self, attend: AttendAttempt, lease: Lease, run: DrivenRun, placement: Placement) -> None:
        self._attend = attend
        self._lease = lease
        self._run = run
        self._placement = placement
        self._heard = attend.now()
        self.cursor = run.executor_cursor

    async def to_the_end(self) -> Change:
        bounds = self._attend.bounds
        while True:
            upstream = await self._attend.open(self._run, self._placement, self.cursor)
            if upstream is not None:
                try:
                    ended = await self._read(upstream)
                finally:
                    await upstream.close()
                if ended is not None:
                    return ended
            silent = self._attend.now() - self._heard
            if silent > bounds.lost_after:
                raise AttemptGone(f"its executor was silent for {silent:.0f} s")
            await asyncio.sleep(bounds.reconnect)

    async def _read(self, upstream: Upstream) -> Change | None:
        """Until the attempt has ended (its change), or this stream has (None)."""
        frames = FrameReader()
        while True:
            try:
                block = await upstream.next(self._attend.bounds.silence)
            except CutError:
                return None
            if block is None:
                return None
            if not block:
                # Heartbeats should have come: the stream is dead, whoever cut it. The probe tells whether the executor is.
                if await self._attend.answers(self._run, self._placement):
                    self._heard = self._attend.now()
                return None
            change = await self._record(frames.feed(block))
            self._heard = self._attend.now()  # after the write: a wait for the database is not the executor's silence
            if change is not None and change.attempt_over:
                return change

    async def _record(self, frames: Sequence[Frame]) -> Change | None:
        if not frames:
            return None
        news = [_news(frame) for frame in frames]
        change = await self._attend.record(self._lease, news)
        self.cursor = news[-1].executor_cursor
        return change


def _news(frame: Frame) -> FromExecutor:
    envelope = _ENVELOPE.decode(frame.data)
    return FromExecutor(
        executor_cursor=envelope.executor_cursor,
        attempt=envelope.attempt,
        at=envelope.at,
        kind=envelope.kind,
        data=bytes(envelope.data).decode(),
        raw_ref=bytes(envelope.raw_ref).decode() or None,
    )
