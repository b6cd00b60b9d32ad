"""Workspaces that no run needs any more: deleted on the control plane's word, and never on this executor's own idea.

The word is about the files of named runs. Those of any other run stay, as does a workspace in which an attempt lives; a word that
was long on its way counts for nothing, because what was true when it was said may not be any more.
"""

from __future__ import annotations

import asyncio
import os
import re
from secrets import token_hex

import structlog

from executor.attempts.leash import is_ours
from executor.attempts.live_runs import LiveRuns
from executor.snapshots.blobs import BlobError
from executor.snapshots.snapshots import Snapshots
from executor.workspaces.tree_removal import remove_tree
from executor.workspaces.workspace import Workspace
from shared.clock import monotonic_ms
from shared.contracts.provider_runs import ForgetWorkspace, WorkspaceForgotten
from shared.errors import ErrorCode, RunyardError

STALE_MS = 10_000
YOUNG_BLOB_SECONDS = 600.0  # far longer than a word may be on its way: a new session's snapshot is never taken for an old one's
_ASIDE = ".going"
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")

log = structlog.get_logger("forgetting")


class Forgetting:
    """``run`` deletes what was put aside, also what an earlier life of the executor left undone."""

    def __init__(self, runs: LiveRuns, snapshots: Snapshots, instance: str) -> None:
        self._runs = runs
        self._snapshots = snapshots
        self._instance = instance
        self._aside = snapshots.workspaces / _ASIDE
        self._work = asyncio.Event()
        self._is_stopping = False

    async def __call__(self, key: str, request: ForgetWorkspace) -> WorkspaceForgotten:
        """Idempotent. Raises ``not_found`` for what can be no key, ``conflict`` for a word from too long ago, ``workspace_error``
        where disk or store refuse."""
        if not _KEY.fullmatch(key):
            raise RunyardError(ErrorCode.NOT_FOUND, "there can be no such workspace")
        now = monotonic_ms()
        if not is_ours(request.quote, self._instance, now) or now - request.quote.clock_ms > STALE_MS:
            raise RunyardError(ErrorCode.CONFLICT, "the quoted clock reading is not from this executor, or too old")
        if self._runs.works_in(key):
            return WorkspaceForgotten(workspace=key, status="in_use")
        if not self._put_aside(Workspace.at(self._snapshots.workspaces, key), frozenset(request.run_ids)):
            return WorkspaceForgotten(workspace=key, status="kept")
        self._work.set()
        is_gone = await self._forget_snapshots(key)
        return WorkspaceForgotten(workspace=key, status="gone" if is_gone else "in_use")

    def _put_aside(self, workspace: Workspace, run_ids: frozenset[str]) -> bool:
        """At once and on the loop: no start comes between the look and the move. False: it is another run's."""
        key = workspace.base.name
        is_theirs = self._snapshots.is_left_by(key, run_ids)
        try:
            if workspace.base.exists():
                if not is_theirs:
                    return False
                self._aside.mkdir(mode=0o700, exist_ok=True)
                workspace.base.rename(self._aside / token_hex(8))
            if is_theirs:
                self._snapshots.unmark(key)
        except OSError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"the workspace cannot be deleted: {error.strerror}") from error
        return True

    async def _forget_snapshots(self, key: str) -> bool:
        try:
            return await self._snapshots.forget(key, YOUNG_BLOB_SECONDS)
        except BlobError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, str(error)) from error

    # ---- deleting ----

    async def run(self) -> None:
        """Until cancelled. A tree of many files is left off in the middle when the executor stops."""
        try:
            while True:
                await asyncio.to_thread(self._delete)
                await self._work.wait()
                self._work.clear()
        except asyncio.CancelledError:
            self._is_stopping = True
            raise

    def _delete(self) -> None:
        """In a thread. What cannot be deleted is tried again with the next one, and keeps no other."""
        try:
            entries = os.listdir(self._aside)
        except FileNotFoundError:
            return  # nothing was ever put aside here
        except OSError as error:
            log.warning("forgetting.not_deleted", reason=error.strerror)
            return
        for entry in entries:
            if self._is_stopping:
                return
            try:
                remove_tree(self._aside / entry, lambda: not self._is_stopping)
            except OSError as error:
                log.warning("forgetting.not_deleted", entry=entry, reason=error.strerror)
