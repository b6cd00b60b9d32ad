"""The driver: takes one claimed run through its attempts until it is over, parked, handed back, or somebody else's.

Propose → write the attempt → start it there → attend it. Every step can be repeated by the next driver from the rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from control_plane.domain.lifecycle import Signal
from control_plane.domain.line import looks_again_in
from control_plane.domain.messages import Heard, MessagesSettled
from control_plane.domain.news import Move, News, Told
from control_plane.domain.placing import NextStep, next_step, provider_run
from control_plane.domain.recording import Change
from control_plane.domain.run import DrivenRun, Lease, Placement
from control_plane.domain.standing import Standing
from control_plane.manager_client import ManagerClient
from control_plane.runs.attend import AttendAttempt
from control_plane.runs.gate import Gate
from control_plane.runs.leashes import Leashes
from control_plane.runs.record import LeaseLost, Recorder
from control_plane.runs.room import Room
from control_plane.runs.start import NotStarted, StartAttempt, StartRefused
from control_plane.storage.apps import AppStore
from control_plane.storage.interactions import Answered, InteractionStore
from control_plane.storage.messages import MessageStore
from control_plane.storage.runs import RunStore
from control_plane.storage.snapshots import SnapshotStore
from shared.contracts.events import InteractionResolved
from shared.contracts.provider_runs import Propose, WorkspaceRef
from shared.contracts.runs import TERMINAL, RunStatus
from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, UnknownOutcomeError

log = structlog.get_logger("drive")

UNAVAILABLE_SECONDS = 1.0


@dataclass(slots=True)
class _Tried:
    """What this drive has learned: executors that refused, and attempts nobody else can have sent a start of."""

    refusing: list[str] = field(default_factory=list[str])
    written: set[int] = field(default_factory=set[int])


@dataclass(frozen=True, slots=True)
class DriveRun:
    """One use case: ``await drive(lease)``, until the run is over or handed back. Raises ``LeaseLost`` when somebody else has it.

    The parts of it say whether the drive ends with them: True, and the lease has gone or the run has.
    """

    runs: RunStore
    interactions: InteractionStore
    messages: MessageStore
    snapshots: SnapshotStore
    apps: AppStore
    recorder: Recorder
    manager: ManagerClient
    leashes: Leashes
    room: Room
    start: StartAttempt
    attend: AttendAttempt
    gate: Gate

    async def __call__(self, lease: Lease) -> None:
        tried = _Tried()
        while True:
            run = await self.runs.driven(lease.run_id)
            if run.status in TERMINAL:
                return
            if not run.attempt_living:
                if await self._take_up(lease, run, tried):
                    return
                continue
            self.room.is_placed(run.run_id)
            change = await self._attempt(lease, run, maybe_heard=run.attempt not in tried.written)
            if await (self._not_here(lease, run, tried) if change is None else self._after(run, change)):
                return

    async def _not_here(self, lease: Lease, run: DrivenRun, tried: _Tried) -> bool:
        """Its executor refused the attempt for now: another one may take it, unless its workspace is there only."""
        assert run.placement is not None
        if _needs_its_files(run, await self.snapshots.standing(run, run.attempt)):
            return await self._wait_at(lease, run, run.placement.executor_id)
        tried.refusing.append(run.placement.executor_id)
        return False

    async def _wait_at(self, lease: Lease, run: DrivenRun, executor_id: str | None) -> bool:
        """It waits for one executor, in the line; runs that go elsewhere need not wait behind it."""
        before = sum(each == executor_id for each in run.awaited)
        await self.runs.let_go(lease, looks_again_in(before), executor_id)
        return True

    async def _after(self, run: DrivenRun, change: Change) -> bool:
        """Its attempt has ended. Where the next one may begin at once the drive goes on; else the lease went with that write."""
        if not change.lets_go:
            return False
        await self._release(run)
        return True

    # ---- between attempts ----

    async def _take_up(self, lease: Lease, run: DrivenRun, tried: _Tried) -> bool:
        """Decide what becomes of a run without a living attempt. False: look at it again."""
        match next_step(run):
            case NextStep.CANCEL:
                await self.recorder.record(lease, [Move(Signal.STOPPED)])
                return True
            case NextStep.GIVE_UP:
                await self.recorder.record(lease, [Move(Signal.GIVEN_UP, ErrorCode.EXECUTOR_LOST)])
                return True
            case NextStep.PLACE:
                return await self.gate(lease, run) or await self._place(lease, run, tried)

    async def _place(self, lease: Lease, run: DrivenRun, tried: _Tried) -> bool:
        """Write the next attempt at a proposed executor, or hand the run back until there is one."""
        if run.waits_at in run.awaited:
            return await self._wait_at(lease, run, run.waits_at)
        if run.attempt == 0 and run.workspace_key != run.run_id:
            run = await self.runs.follow(run)
        standing = await self.snapshots.standing(run, run.attempt + 1)
        if standing.newest_at in run.awaited and _needs_its_files(run, standing):
            return await self._wait_at(lease, run, standing.newest_at)
        request = Propose(
            provider=run.provider, workspace=WorkspaceRef(key=run.workspace_key), avoid=sorted({*tried.refusing, *run.awaited}),
            newest_at=standing.newest_at, movable=standing.is_movable,
        )  # fmt: skip
        try:
            proposal = await self.manager.propose(request)
        except RunyardError as error:
            return await self._not_placed(lease, run, tried, error)
        except UnknownOutcomeError:
            await self.runs.let_go(lease, UNAVAILABLE_SECONDS)
            return True
        self.leashes.quoted(proposal.executor_id, proposal.instance, proposal.clock_ms)
        attempt = await self.runs.next_attempt(lease, Placement(proposal.executor_id, proposal.instance, proposal.url))
        if attempt is not None:
            tried.written.add(attempt)
        elif not (await self.runs.driven(lease.run_id)).stop_requested:
            raise LeaseLost(lease.run_id)
        return False

    async def _not_placed(self, lease: Lease, run: DrivenRun, tried: _Tried, error: RunyardError) -> bool:
        if error.code is not ErrorCode.QUEUE_FULL:
            await self.runs.let_go(lease, UNAVAILABLE_SECONDS)
            return True
        full: str | None = error.extra.get("executorId")
        if full is not None and _goes_on(run):
            return await self._wait_at(lease, run, full)
        if full is not None:
            tried.refusing.append(full)  # it has files there, and no session that needs them
            return False
        self.room.none_for(run.provider)
        await self.runs.let_go(lease)  # its place in the line is its age
        return True

    # ---- one attempt ----

    async def _attempt(self, lease: Lease, run: DrivenRun, maybe_heard: bool) -> Change | None:
        """The change that ended the attempt; None where its executor refused it for now."""
        assert run.placement is not None
        executor_id = run.placement.executor_id
        try:
            if not run.attempt_started:
                accepted = await self._start(lease, run, executor_id, maybe_heard)
                if accepted.attempt_over:
                    return accepted
            else:
                await self.leashes.keep(executor_id, run.run_id, run.attempt, renew_now=True)
            return await self.attend(lease, run)
        except StartRefused as refused:
            return await self._refused(lease, run, refused)
        except NotStarted as error:
            return await self.attend.lost(lease, run, str(error), run.executor_cursor, never_began=error.never_began)
        finally:
            self.leashes.drop(executor_id, run.run_id, run.attempt)

    async def _start(self, lease: Lease, run: DrivenRun, executor_id: str, maybe_heard: bool) -> Change:
        """Start it and write so. Replies and messages travel with a later attempt. Raises as ``StartAttempt``."""
        answered = await self.interactions.carried(run.run_id, run.attempt) if run.attempt > 1 else []
        replies = [(each.request, each.reply) for each in answered]
        carried = await self.messages.carried(run.run_id, run.attempt) if run.attempt > 1 else []
        said, heard = [each.text for each in carried], await self._heard(run)
        standing = await self.snapshots.standing(run, run.attempt)
        request = provider_run(run, replies, await self._lent(run, maybe_heard), said, standing, heard)
        await self.start(executor_id, request, maybe_heard)
        # It works from here on, written or not; and may have done so for long, where the start was repeated.
        await self.leashes.keep(executor_id, run.run_id, run.attempt, renew_now=maybe_heard)
        news: list[News] = [Move(Signal.ATTEMPT_ACCEPTED)]
        if answered or run.status is RunStatus.WAITING_USER:
            news.append(Told(tuple(map(_resolution, answered))))
        if carried:
            news.append(MessagesSettled(run.attempt, tuple(each.message_id for each in carried)))
        return await self.recorder.record(lease, news)

    async def _heard(self, run: DrivenRun) -> list[Heard]:
        """What earlier attempts were told. Only an executor that does not have their files has use for it."""
        if run.attempt == 1:
            return []
        replies = await self.interactions.heard(run.run_id, run.attempt)
        return [*replies, *await self.messages.heard(run.run_id, run.attempt)]

    async def _lent(self, run: DrivenRun, maybe_heard: bool) -> dict[str, str]:
        """Its profile's credentials. Raises ``StartRefused`` for a disabled one: the executor's own are not what it was to use.

        A start that may have been heard is repeated all the same: whether its engine runs is to be known first.
        """
        if run.profile is None:
            return {}
        lent = await self.apps.credentials(run.profile.app_id)
        if lent is None and not maybe_heard:
            detail = f"the execution profile {run.profile.app_id} is disabled"
            raise StartRefused(RunyardError(ErrorCode.PERMISSION_DENIED, detail))
        return lent or {}

    async def _refused(self, lease: Lease, run: DrivenRun, refused: StartRefused) -> Change | None:
        """A definite no. None where it only means «not here, not now»: the same attempt may be placed again."""
        if refused.elsewhere or isinstance(refused.error, NeverSentError):
            await self.runs.withdraw_attempt(lease, run.attempt)
            return None
        return await self.recorder.record(lease, [Move(Signal.START_REFUSED, refused.error.code, refused.error.detail)])

    async def _release(self, run: DrivenRun) -> None:
        """The executor may forget the attempt; if it does not hear us, it forgets by age."""
        if run.placement is None:
            return
        try:
            await self.manager.release(run.placement.executor_id, run.run_id, run.attempt)
        except (RunyardError, NeverSentError, UnknownOutcomeError) as error:
            log.info("attempt.not_released", run_id=run.run_id, attempt=run.attempt, reason=str(error))


def _goes_on(run: DrivenRun) -> bool:
    """With an engine session, and so with the files that belong to it."""
    return (run.engine_session or run.resume_session) is not None


def _needs_its_files(run: DrivenRun, standing: Standing) -> bool:
    """And they are at one executor only."""
    return _goes_on(run) and not standing.is_movable


def _resolution(answered: Answered) -> InteractionResolved:
    return InteractionResolved(
        question_id=answered.question_id, how="answered", answered_by=answered.answered_by,
        answer=answered.reply.model_dump(mode="json", by_alias=True, exclude_none=True),
    )  # fmt: skip
