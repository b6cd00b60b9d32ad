"""Snapshots: what an attempt left is kept where every executor finds it, and a workspace is laid anew from what was kept.

Which attempt the files of a workspace are of stands beside it (``<root>/.left/<key>``). Files of another attempt than those
a start names are never taken for the right ones: then they come from a snapshot whose hash was checked, or the start is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import structlog

from executor.adapters.session_state import SESSION_STATE
from executor.snapshots.archive import ArchiveError, exchange, pack, unpack
from executor.snapshots.blobs import BlobError, BlobName, BlobStore
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
_LEFT, _LAYING = ".left", ".laying"
_ANY, _HALF = "any", "half"
_STATE = tuple(pattern for patterns in SESSION_STATE.values() for pattern in patterns)

log = structlog.get_logger("snapshots")


@dataclass(frozen=True, slots=True)
class Way:
    """How a start comes to its files. ``replaces``: those that are here go, for those of ``snapshot`` or for none."""

    request: StartProviderRun
    replaces: bool = False
    snapshot: SnapshotRef | None = None
    lost_from: EventRef | None = None

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

    async def go(self, way: Way, workspace: Workspace, is_hurried: Callable[[], bool]) -> None:
        """Lay the files of an attempt that is about to begin, and write that from now on they are its own.

        ``is_hurried``: somebody wants its end. Raises ``workspace_error``; then nobody will take for whole what stands there.
        """
        key, run_id, attempt = way.request.workspace.key, way.request.run_id, way.request.attempt
        try:
            if way.replaces:
                self._mark(key, _HALF)
                await asyncio.to_thread(self._replace, way, workspace, Patience(LAY_SECONDS, is_hurried))
            self._mark(key, _name(run_id, attempt))
        except (OSError, ArchiveError, BlobError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"the workspace could not be made: {reason}") from error

    def _mark(self, key: str, text: str) -> None:
        folder = self.workspaces / _LEFT
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / key, text)

    def _replace(self, way: Way, workspace: Workspace, patience: Patience) -> None:
        """In a thread."""
        folder = self._laying / token_hex(8)
        folder.mkdir(mode=0o700, parents=True)
        try:
            if way.snapshot is not None and self.store is not None:
                name = BlobName(way.request.workspace.key, way.snapshot.sha256)
                self.store.fetch(name, way.snapshot.bytes, folder / "archive")
                unpack(folder / "archive", folder / "laid", self.max_bytes, patience.goes_on)
            else:
                (folder / "laid").mkdir()
            exchange(workspace, folder / "laid", _STATE)
        finally:
            remove_tree(folder)

    # ---- after an attempt ----

    async def take(
        self, request: StartProviderRun, workspace: Workspace, engine_session: str | None, is_hurried: Callable[[], bool]
    ) -> SnapshotTaken | Diagnostic | None:
        """Of a workspace in which nothing runs any more. None where no snapshots are wanted; never raises ``RunyardError``."""
        if self.store is None:
            return None
        patience = Patience(TAKE_SECONDS, is_hurried)
        try:
            name, size = await asyncio.to_thread(self._take, self.store, request, workspace, patience)
        except (ArchiveError, BlobError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            log.warning("snapshot.not_taken", run_id=request.run_id, reason=reason)
            return Diagnostic(code="snapshot_not_taken", message=f"no snapshot was taken of the workspace: {reason}")
        return SnapshotTaken(sha256=name.sha256, bytes=size, path=str(workspace.base), engine_session=engine_session)

    def _take(
        self, store: BlobStore, request: StartProviderRun, workspace: Workspace, patience: Patience
    ) -> tuple[BlobName, int]:
        """In a thread."""
        draft = self.drafts / token_hex(8)
        try:
            packed = pack(workspace, _STATE, draft, self.max_bytes, patience.goes_on)
            name = BlobName(request.workspace.key, packed.sha256)
            store.put(name, draft)
        finally:
            draft.unlink(missing_ok=True)
        named = request.otherwise.snapshot if request.otherwise is not None else None
        for old in store.group(name.group) if named is not None else ():
            if named is not None and old.sha256 not in (name.sha256, named.sha256):  # nobody names it, and nobody will
                store.remove(old)
        return name, packed.size


def _name(run_id: str, attempt: int) -> str:
    return f"{run_id} {attempt}"
