"""What a run left in its workspace, relayed from the executor that holds it. Reads no byte of it and keeps none.

The workspace is the session's: a later run of the session goes on in it, and its files are shown as they stand now.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.manager_client import ManagerClient, was_not_sent
from control_plane.storage.runs import RunStore
from shared.errors import ErrorCode, RunyardError
from shared.http import NoAnswerError
from shared.upstream import Upstream
from shared.web import Caller


@dataclass(frozen=True, slots=True)
class ReadFiles:
    runs: RunStore
    manager: ManagerClient

    async def __call__(self, run_id: str, path: str, caller: Caller, cursor: str | None = None) -> Upstream:
        """``path``: ``files``, from ``cursor`` on, ``files/<quoted path>`` or ``bundle``. The open answer; close it.

        Raises ``not_found`` for a run that is not the caller's and for what is gone, ``invalid_request`` for a path that
        leaves the workspace, ``payload_too_large``, and ``provider_unavailable`` while nobody can be asked.
        """
        head = await self.runs.head(run_id)
        if head is None or not caller.may_see(head[1]):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        run = await self.runs.driven(run_id)
        if run.placement is None:
            raise RunyardError(ErrorCode.NOT_FOUND, "the run has no files: no executor has taken it yet")
        try:
            named = {"workspace": run.workspace_key, **({"cursor": cursor} if cursor is not None else {})}
            return await self.manager.download(run.placement.executor_id, run_id, path, named)
        except NoAnswerError as error:
            raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, f"its executor gave no answer: {error}", retry_after=1) from error
        except RunyardError as error:
            if error.code is ErrorCode.NOT_FOUND and was_not_sent(error):
                raise RunyardError(ErrorCode.NOT_FOUND, "the executor that held its files is gone") from error
            raise RunyardError(error.code, error.detail, error.errors, error.retry_after) from error
