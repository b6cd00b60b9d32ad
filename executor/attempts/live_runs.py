"""The provider runs of this executor: start, find, stop, renew, release, and the slow beat that ends what may not go on.

One engine process per (runId, attempt), however often a start is sent: the reservation is made before anything is awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from executor import metrics
from executor.attempts.endings import Cause
from executor.attempts.leash import Leash, is_ours
from executor.attempts.plan import Plan
from executor.attempts.prepare import Identity, Prepare
from executor.attempts.registry import Attempt, Attempts, recovered
from executor.attempts.runner import Runner
from executor.events.journal import Journal, JournalError, JournalHead
from executor.processes.process_tree import Forest
from executor.snapshots.snapshots import Snapshots, Way
from shared.clock import Clock, monotonic, monotonic_ms
from shared.contracts.events import Diagnostic, SnapshotTaken
from shared.contracts.provider_runs import (
    AttemptRef,
    LeashRenewed,
    ProviderRunAccepted,
    RenewLeash,
    StartProviderRun,
    StopTaken,
)
from shared.errors import ErrorCode, RunyardError, invalid

REMEMBERED_REFUSALS = 10_000
REFUSAL_SECONDS = 600.0
REMEMBERED_SECRETS = 10_000
KEEP_READ_SECONDS = 24 * 3600.0
KEEP_UNREAD_SECONDS = 7 * 24 * 3600.0
END_SECONDS = 3.5
END_GRACE_SECONDS = 1.5

log = structlog.get_logger("live_runs")


@dataclass(frozen=True, slots=True)
class Places:
    """Where journals and workspaces stand, and how many attempts may live at once."""

    journal: Path
    workspaces: Path
    slots: int


class LiveRuns:
    """Everything is called on the event loop.

    ``rest`` and ``leave`` take nothing new and let go on what lives; ``end_all`` ends it.
    """

    def __init__(
        self, prepare: Prepare, snapshots: Snapshots, forest: Forest, places: Places, identity: Identity, now: Clock
    ) -> None:
        self._prepare = prepare
        self._snapshots = snapshots
        self._forest = forest
        self._places = places
        self._identity = identity
        self._now = now
        self._attempts = Attempts()
        self._refused: dict[str, tuple[int, float]] = {}  # per run: this attempt and all before it, until then
        self._rests = False
        self.leaves_by_ms = 0  # on the monotonic clock; 0: nobody asked for the end
        self._secrets: dict[str, tuple[str, ...]] = {}  # by workspace key
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_draining(self) -> bool:
        """Nothing new is taken."""
        return self._rests or self.is_stopping

    @property
    def is_stopping(self) -> bool:
        """Its end was asked for: there is no going on."""
        return self.leaves_by_ms > 0 or self._ending is not None

    def rest(self, rests: bool) -> None:
        """An operator's wish: until it is taken back, or until the next life of this executor."""
        self._rests = rests

    def leave(self, by_ms: int) -> None:
        """This executor is about to end, by then at the latest."""
        self.leaves_by_ms = by_ms

    def recover(self) -> None:
        """Once, before anything else: what earlier lives left."""
        self._snapshots.prepare()
        for attempt in recovered(self._places.journal, self._places.workspaces, self._now):
            self._attempts.add(attempt)

    def all(self) -> Iterable[Attempt]:
        return self._attempts

    def live(self) -> list[Attempt]:
        return self._attempts.live()

    def find(self, run_id: str, number: int | None) -> Attempt:
        """Raises ``not_found``; ``conflict`` for an attempt that is not the newest."""
        return self._attempts.named(run_id, number)

    def works_in(self, workspace_key: str) -> bool:
        """Whether an attempt lives in this workspace."""
        return self._others_at(workspace_key, [])

    # ---- start ----

    def start(self, request: StartProviderRun) -> tuple[ProviderRunAccepted, bool]:
        """The answer, and whether this call made the attempt. Raises ``RunyardError``; then nothing was started.

        It awaits nothing: of two calls at once one makes the attempt and the other finds it.
        """
        known = self._attempts.get(request.run_id, request.attempt)
        if known is not None:
            return self._accepted(known), False
        older = self._older(request)
        self._must_take(request, older)
        if self._others_at(request.workspace.key, older):
            raise RunyardError(ErrorCode.CONFLICT, "another run's attempt lives in this workspace")
        leash = Leash.starting(request.leash, self._identity.instance, monotonic_ms())
        if leash is None:
            raise RunyardError(ErrorCode.CONFLICT, "the quoted clock reading is not from this executor, or too old")
        way = self._snapshots.way(request)
        plan, workspace = self._prepare(way.request)
        try:
            journal = Journal.create(self._places.journal, self._head(request))
        except JournalError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, str(error)) from error
        self._remember_secrets(request.workspace.key, plan.secrets)
        runner = Runner(replace(plan, started=way.told(plan.started)), journal, self._forest, self._now)
        attempt = Attempt(journal, runner.tail, workspace, leash, runner)
        self._attempts.add(attempt)
        laying = partial(self._lay, way, attempt, plan, runner)
        attempt.task = asyncio.create_task(self._live(attempt, runner, older, laying))
        attempt.task.add_done_callback(lambda _ended: self._forget_secrets(request.workspace.key, plan.passing))
        return self._accepted(attempt), True

    def _others_at(self, workspace_key: str, known: list[Attempt]) -> bool:
        living = [each for each in self.live() if each not in known]
        return any(each.journal.head.workspace == workspace_key for each in living)

    async def _lay(self, way: Way, attempt: Attempt, plan: Plan, runner: Runner) -> None:
        """Raises ``workspace_error``; then nothing is kept of what stands there."""
        way = await self._snapshots.go(way, attempt.workspace, lambda: runner.status == "stopping")
        runner.on_rest = partial(self._keep, way, attempt, runner)
        if way.replaces:
            attempt.workspace.write(plan.conversation.command.files)  # once more: what stood there is gone

    async def _keep(self, way: Way, attempt: Attempt, runner: Runner) -> SnapshotTaken | Diagnostic | None:
        """A snapshot of what it left; none while another attempt works there: that one takes it."""
        if self._others_at(way.request.workspace.key, [attempt]):
            return None
        session = runner.engine_session or way.request.resume_session_id
        return await self._snapshots.take(way, attempt.workspace, session, lambda: runner.is_hurried)

    def secrets_of(self, workspace_key: str) -> tuple[str, ...]:
        """What attempts of this life were signed in with there: no file may show it, also after they were released."""
        return self._secrets.get(workspace_key, ())

    def _remember_secrets(self, workspace_key: str, secrets: tuple[str, ...]) -> None:
        known = self._secrets.pop(workspace_key, ())
        while len(self._secrets) >= REMEMBERED_SECRETS:
            del self._secrets[next(iter(self._secrets))]
        self._secrets[workspace_key] = tuple(dict.fromkeys((*known, *secrets)))

    def _forget_secrets(self, workspace_key: str, passing: Sequence[str]) -> None:
        known = self._secrets.get(workspace_key)
        if known is not None:
            self._secrets[workspace_key] = tuple(each for each in known if each not in passing)

    def _older(self, request: StartProviderRun) -> list[Attempt]:
        if request.run_id in (".", ".."):
            raise invalid("runId", "this id cannot be used")
        newest = self._attempts.newest(request.run_id)
        if newest is not None and newest.number > request.attempt:
            raise RunyardError(ErrorCode.CONFLICT, f"attempt {newest.number} of run {request.run_id} is here already")
        return [attempt for attempt in self._attempts.of_run(request.run_id) if attempt.is_live]

    def _must_take(self, request: StartProviderRun, older: list[Attempt]) -> None:
        if self._is_refused(request.run_id, request.attempt):
            raise RunyardError(ErrorCode.CONFLICT, "this attempt was stopped or released before it came")
        if self.is_draining:
            doing = "stopping" if self.is_stopping else "draining"
            raise RunyardError(ErrorCode.QUEUE_FULL, f"the executor is {doing}", retry_after=1)
        if len(self.live()) - len(older) >= self._places.slots:
            raise RunyardError(ErrorCode.QUEUE_FULL, f"all {self._places.slots} slots are taken", retry_after=1)

    def _head(self, request: StartProviderRun) -> JournalHead:
        return JournalHead(
            run_id=request.run_id,
            attempt=request.attempt,
            provider=request.provider,
            executor_id=self._identity.executor_id,
            instance=self._identity.instance,
            started_at=self._now().isoformat(),
            workspace=request.workspace.key,
        )

    def _accepted(self, attempt: Attempt) -> ProviderRunAccepted:
        head = attempt.journal.head
        return ProviderRunAccepted(
            run_id=head.run_id,
            attempt=head.attempt,
            warnings=list(head.warnings),
            executor_id=head.executor_id,
            instance=head.instance,
            clock_ms=monotonic_ms(),
        )

    async def _live(self, attempt: Attempt, runner: Runner, older: list[Attempt], lay: Callable[[], Awaitable[None]]) -> None:
        """The whole life of an attempt; the outermost loop of its task."""
        started = monotonic()
        for each in older:
            if each.runner is not None and each.task is not None:
                each.runner.end(Cause.SUPERSEDED)
                await asyncio.wait([each.task])
        try:
            try:
                await lay()
            except RunyardError as error:
                runner.end(Cause.NO_WORKSPACE, error.detail)
            await runner.run()
        except Exception as error:  # our own failure: the attempt still ends, and says so
            log.error("attempt.failed", run_id=attempt.run_id, attempt=attempt.number, exc_info=error)
            await runner.bury()
        if runner.ended is not None:
            attempt.note_end(runner.ended, runner.engine_session)
            metrics.count_end(attempt.journal.head.provider, runner.ended.outcome, monotonic() - started)
            log.info("attempt.ended", run_id=attempt.run_id, attempt=attempt.number, outcome=runner.ended.outcome)

    # ---- stop, renew, release ----

    def stop(self, run_id: str, number: int | None) -> StopTaken:
        """Answered at once. One for an attempt that has not come yet refuses it when it comes. Raises ``conflict``."""
        newest = self._attempts.newest(run_id)
        if newest is None or (number is not None and number > newest.number):
            wanted = number or 1
            self._refuse(run_id, wanted)
            return StopTaken(run_id=run_id, attempt=wanted, status="remembered")
        attempt = self.find(run_id, number)
        if attempt.is_live and attempt.runner is not None:
            attempt.runner.end(Cause.STOPPED)
            return StopTaken(run_id=run_id, attempt=attempt.number, status="stopping")
        return StopTaken(run_id=run_id, attempt=attempt.number, status="ended")

    def renew(self, request: RenewLeash) -> LeashRenewed:
        """A quote that is not ours renews nothing."""
        now_ms = monotonic_ms()
        counts = is_ours(request.quote, self._identity.instance, now_ms)
        unknown: list[AttemptRef] = []
        for named in request.attempts:
            attempt = self._attempts.get(named.run_id, named.attempt)
            if attempt is None or attempt.leash is None:
                unknown.append(named)
            elif counts and not attempt.leash.has_lapsed(now_ms):
                attempt.leash.renew(request.quote)
        return LeashRenewed(
            executor_id=self._identity.executor_id, instance=self._identity.instance, clock_ms=now_ms, unknown=unknown
        )

    def release(self, run_id: str, number: int | None) -> None:
        """Forget an ended run and its journals; its workspace stays. A run that is not here is released already."""
        newest = self._attempts.newest(run_id)
        if newest is None:
            return
        self.find(run_id, number)
        if any(attempt.is_live for attempt in self._attempts.of_run(run_id)):
            raise RunyardError(ErrorCode.CONFLICT, "the attempt has not ended")
        for attempt in self._attempts.of_run(run_id):
            self._forget(attempt)

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.remove(attempt)
        self._refuse(attempt.run_id, attempt.number)
        attempt.journal.remove()
        attempt.tail.cut()

    def _refuse(self, run_id: str, number: int) -> None:
        """An attempt that was stopped before it came, or released, is not taken any more; nor is one that is older still."""
        highest, _until = self._refused.pop(run_id, (0, 0.0))
        while len(self._refused) >= REMEMBERED_REFUSALS:
            del self._refused[next(iter(self._refused))]
        self._refused[run_id] = max(number, highest), monotonic() + REFUSAL_SECONDS

    def _is_refused(self, run_id: str, number: int) -> bool:
        highest, until = self._refused.get(run_id, (0, 0.0))
        return number <= highest and until > monotonic()

    # ---- the beat ----

    def end_lapsed(self) -> None:
        """End every attempt whose leash has lapsed. Cheap: four times a second."""
        now_ms = monotonic_ms()
        for attempt in self.live():
            if attempt.runner is not None and attempt.leash is not None and attempt.leash.has_lapsed(now_ms):
                attempt.runner.end(Cause.LEASH_LAPSED)

    def earliest_leash_ms(self) -> int:
        """The next deadline of a leash that has not been acted upon; 0 for none."""
        waiting = [
            attempt.leash.until_ms
            for attempt in self.live()
            if attempt.leash is not None and attempt.runner is not None and not attempt.runner.is_hurried
        ]
        return min(waiting, default=0)

    def release_old(self) -> None:
        """Nobody released them: a day after this life first knew their end they go by themselves, a week where nobody heard it.

        The clock on the wall has no say: who sets it a day on would delete what no driver has had yet.
        """
        now = monotonic()
        for attempt in list(self._attempts):
            keep = KEEP_READ_SECONDS if attempt.tail.was_read else KEEP_UNREAD_SECONDS
            if attempt.ended_seen is not None and now - attempt.ended_seen > keep:
                self._forget(attempt)

    # ---- the end ----

    def end_all(self) -> asyncio.Task[None]:
        """End every attempt, in bounded time; the same task however often it is asked."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end_all())
        return self._ending

    async def _end_all(self) -> None:
        living = [attempt for attempt in self.live() if attempt.runner is not None]
        for attempt in living:
            if attempt.runner is not None:
                attempt.runner.end(Cause.SHUTTING_DOWN)
        tasks = [attempt.task for attempt in living if attempt.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=END_GRACE_SECONDS)
        for attempt in living:
            if attempt.runner is not None:
                attempt.runner.hurry()
        await asyncio.wait(tasks, timeout=END_SECONDS - END_GRACE_SECONDS)
        for attempt in self.live():
            attempt.tail.cut()
