"""Snapshots: what an attempt left is kept where every executor finds it, and a workspace is laid anew from what was kept.

Which attempt the files of a workspace are of stands beside it (``<root>/.left/<key>``). Files of another attempt than those
a start names are never taken for the right ones: then they come from a snapshot whose hash was checked, or the start is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from secrets import token_hex

import structlog

from executor.adapters.session_state import SESSION_STATE
from executor.snapshots.archive import ArchiveError, exchange, pack, unpack
from executor.snapshots.blobs import BlobError, BlobName, BlobStore
from executor.snapshots.store_calls import StoreCalls
from executor.state_dir import write_whole
from executor.workspaces.tree_removal import remove_tree
from executor.workspaces.workspace import Workspace
from shared.clock import Monotonic, monotonic
from shared.contracts.events import AttemptStarted, Diagnostic, EventRef, Restored, SnapshotTaken
from shared.contracts.provider_runs import SnapshotRef, StartProviderRun
from shared.errors import ErrorCode, RunyardError

TAKE_SECONDS = 60.0
HURRIED_SECONDS = 1.0  # of an executor that is stopping, or an attempt nobody waits for
LAY_SECONDS = 300.0
LIST_SECONDS = 5.0
FORGET_SECONDS = 20.0
_LEFT, _LAYING = ".left", ".laying"
_ANY, _HALF = "any", "half"
_STATE = tuple(pattern for patterns in SESSION_STATE.values() for pattern in patterns)

log = structlog.get_logger("snapshots")


@dataclass(frozen=True, slots=True)
class Way:
    """How a start comes to its files. ``replaces``: those that are here go, for those of ``snapshot`` or for none.

    ``old``: the blobs that nobody named and nobody will, when it began.
    """

    request: StartProviderRun
    replaces: bool = False
    snapshot: SnapshotRef | None = None
    lost_from: EventRef | None = None
    old: tuple[BlobName, ...] = ()

    def told(self, started: AttemptStarted) -> AttemptStarted:
        """The same ``attempt.started``, which says from where the files came."""
        if not self.replaces:
            return started
        restored = Restored.model_validate(self.snapshot, from_attributes=True) if self.snapshot is not None else None
        return started.model_copy(update={"restored": restored, "lost_from": self.lost_from})


@dataclass(slots=True)
class Patience:
    """For how long something goes on: ``seconds``, but only ``HURRIED_SECONDS`` from the moment that somebody is in a hurry."""

    seconds: float
    is_hurried: Callable[[], bool] = lambda: False
    now: Monotonic = monotonic
    _until: float = field(init=False)
    _was_hurried: bool = False

    def __post_init__(self) -> None:
        self._until = self.now() + self.seconds

    def goes_on(self) -> bool:
        if not self._was_hurried and self.is_hurried():
            self._was_hurried, self._until = True, min(self._until, self.now() + HURRIED_SECONDS)
        return self.now() < self._until


@dataclass(frozen=True, slots=True)
class Snapshots:
    """``store`` None: no snapshots. ``drafts`` is this executor's own; ``workspaces`` may be shared with others, each with an
    ``executor_id`` of its own."""

    workspaces: Path
    drafts: Path
    store: BlobStore | None
    max_bytes: int
    executor_id: str
    _calls: StoreCalls = field(default_factory=StoreCalls)

    @property
    def _laying(self) -> Path:
        """What this executor is about to lay: beside the workspaces, because it is moved there."""
        return self.workspaces / _LAYING / hashlib.sha256(self.executor_id.encode()).hexdigest()[:32]

    def prepare(self) -> None:
        """Once, before anything else. Workspaces of a release that did not write whose files they hold are taken as they are."""
        remove_tree(self._laying)
        remove_tree(self.drafts)
        self.drafts.mkdir(mode=0o700, parents=True)
        left = self.workspaces / _LEFT
        if not left.is_dir():
            left.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in self.workspaces.iterdir():
                if not entry.name.startswith("."):
                    write_whole(left / entry.name, _ANY)

    # ---- before an attempt ----

    def way(self, request: StartProviderRun) -> Way:
        """Changes nothing. Raises ``workspace_error`` where the files cannot be had."""
        if not request.after or self._is_left_by(request):
            return Way(request)
        other = request.otherwise
        if other is None and request.resume_session_id is None:
            return Way(request, replaces=True)
        if other is None or (other.snapshot is not None and self.store is None):
            why = "this executor has no EXECUTOR_SNAPSHOT_STORE" if other is not None else "no snapshot holds what it has done"
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"the newest files of this session are not on this executor, and {why}")
        base = str(Workspace.at(self.workspaces, request.workspace.key).base)
        if other.snapshot is not None and other.snapshot.path != base:
            detail = f"the snapshot is of {other.snapshot.path}, and here the workspace would stand at {base}"
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"{detail}: EXECUTOR_WORKSPACE_ROOT must be the same everywhere")
        changed = request.model_copy(update={"resume_session_id": other.resume_session_id, "messages": other.messages})
        return Way(changed, replaces=True, snapshot=other.snapshot, lost_from=other.lost_from)

    def _is_left_by(self, request: StartProviderRun) -> bool:
        left = self._left(request.workspace.key)
        fits = left == _ANY or any(left == _name(each.run_id, each.attempt) for each in request.after)
        return fits and Workspace.at(self.workspaces, request.workspace.key).work.is_dir()

    def is_left_by(self, key: str, run_ids: Container[str]) -> bool:
        """Whether the files of a workspace are of one of these runs; of which runs a release left it that did not say, nobody
        knows, and then they count as such."""
        left = self._left(key)
        return left == _ANY or left.partition(" ")[0] in run_ids

    def unmark(self, key: str) -> None:
        """Nothing stands in this workspace any more. Raises ``OSError``."""
        (self.workspaces / _LEFT / key).unlink(missing_ok=True)

    def _left(self, key: str) -> str:
        try:
            return (self.workspaces / _LEFT / key).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    async def go(self, way: Way, workspace: Workspace, is_hurried: Callable[[], bool]) -> Way:
        """Lay the files of an attempt that is about to begin, and write that from now on they are its own.

        ``is_hurried``: somebody wants its end. Raises ``workspace_error``; then nobody will take for whole what stands there.
        """
        key, run_id, attempt = way.request.workspace.key, way.request.run_id, way.request.attempt
        try:
            if way.replaces:
                self._mark(key, _HALF)
                await self._replace(way, workspace, Patience(LAY_SECONDS, is_hurried))
            self._mark(key, _name(run_id, attempt))
        except (OSError, RuntimeError, ArchiveError, BlobError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"the workspace could not be made: {reason}") from error
        return replace(way, old=await self._old(way.request, is_hurried))

    def _mark(self, key: str, text: str) -> None:
        folder = self.workspaces / _LEFT
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / key, text)

    async def _replace(self, way: Way, workspace: Workspace, patience: Patience) -> None:
        """A store that is given up never touches the workspace: only what was fetched in time is laid."""
        folder = self._laying / token_hex(8)
        folder.mkdir(mode=0o700, parents=True)
        try:
            if way.snapshot is not None and self.store is not None:
                name, archive = BlobName(way.request.workspace.key, way.snapshot.sha256), folder / "archive"
                fetch = partial(self.store.fetch, name, way.snapshot.bytes, archive, patience.goes_on)
                await self._calls.make(fetch, patience.goes_on)
            await asyncio.to_thread(self._lay_out, way, workspace, folder, patience)
        finally:
            await asyncio.to_thread(remove_tree, folder)

    def _lay_out(self, way: Way, workspace: Workspace, folder: Path, patience: Patience) -> None:
        """In a thread."""
        if way.snapshot is not None and self.store is not None:
            unpack(folder / "archive", folder / "laid", self.max_bytes, patience.goes_on)
        else:
            (folder / "laid").mkdir()
        exchange(workspace, folder / "laid", _STATE)

    async def _old(self, request: StartProviderRun, is_hurried: Callable[[], bool]) -> tuple[BlobName, ...]:
        """What may go when this attempt has left a newer one. What comes to be meanwhile is another attempt's, and may be named
        by then: this one would not know of it, were it given up."""
        named = request.otherwise.snapshot if request.otherwise is not None else None
        if self.store is None or named is None:
            return ()
        try:
            patience = Patience(LIST_SECONDS, is_hurried)
            found = await self._calls.make(partial(self.store.group, request.workspace.key), patience.goes_on)
        except BlobError as error:
            log.warning("snapshot.old_not_listed", run_id=request.run_id, reason=str(error))
            return ()
        return tuple(each for each in found if each.sha256 != named.sha256)

    # ---- after an attempt ----

    async def take(
        self, way: Way, workspace: Workspace, engine_session: str | None, is_hurried: Callable[[], bool]
    ) -> SnapshotTaken | Diagnostic | None:
        """Of a workspace in which nothing runs any more. None where no snapshots are wanted; never raises ``RunyardError``."""
        if self.store is None:
            return None
        patience = Patience(TAKE_SECONDS, is_hurried)
        try:
            name, size = await self._take(self.store, way.request.workspace.key, workspace, patience)
        except (ArchiveError, BlobError, OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            log.warning("snapshot.not_taken", run_id=way.request.run_id, reason=reason)
            return Diagnostic(code="snapshot_not_taken", message=f"no snapshot was taken of the workspace: {reason}")
        await self._remove_old(self.store, [old for old in way.old if old != name], patience)
        return SnapshotTaken(sha256=name.sha256, bytes=size, path=str(workspace.base), engine_session=engine_session)

    async def _take(self, store: BlobStore, key: str, workspace: Workspace, patience: Patience) -> tuple[BlobName, int]:
        draft = self.drafts / token_hex(8)
        try:
            packed = await asyncio.to_thread(pack, workspace, _STATE, draft, self.max_bytes, patience.goes_on)
            name = BlobName(key, packed.sha256)
            await self._calls.make(partial(store.put, name, draft, patience.goes_on), patience.goes_on)
        finally:
            draft.unlink(missing_ok=True)
        return name, packed.size

    async def _remove_old(self, store: BlobStore, old: list[BlobName], patience: Patience) -> None:
        """What stays is found by the next attempt."""
        try:
            for each in old:
                await self._calls.make(partial(store.remove, each), patience.goes_on)
        except BlobError as error:
            log.warning("snapshot.old_not_removed", reason=str(error))

    async def forget(self, key: str, older_than: float) -> bool:
        """All snapshots of a workspace that were put more than so many seconds ago. True: none is left. Raises ``BlobError``."""
        if self.store is None:
            return True
        return await self._calls.make(partial(self.store.forget, key, older_than), Patience(FORGET_SECONDS).goes_on)


def _name(run_id: str, attempt: int) -> str:
    return f"{run_id} {attempt}"
