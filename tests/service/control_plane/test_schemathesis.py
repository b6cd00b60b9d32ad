"""The control plane takes what its document allows, refuses what it does not, and answers as it says, whatever is sent.

Left out, and tested by hand: the stream of a run stays open while the run lives (test_follow.py, test_workbench_stream.py,
tests/e2e/test_streams.py). A start that asks for a stream cannot be asked for by the document's own means.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.loopback import serving
from tests.service.control_plane.conftest import replica_at
from tests.service.control_plane.fake_manager import FakeExecutor, FakeManager
from tests.service.fuzzing import BOUND_SECONDS, faults

OPEN_STREAMS = ("get_api_runs_run_id_stream",)


class QuickManager(FakeManager):
    """Its engines are done at once, so that runs have logs, events and ends to be asked for."""

    def app(self) -> Any:
        app = super().app()
        for path in ("/api/providers", "/api/provider-runs/{run_id}/files"):
            app.router.routes.insert(0, Route(path, self._none))
        return app

    def accept(self, executor: FakeExecutor, body: dict[str, Any]) -> Response:
        is_new = (body["runId"], body["attempt"]) not in executor.attempts
        answer = super().accept(executor, body)
        if is_new:
            executor.attempts[body["runId"], body["attempt"]].end()
        return answer

    async def _none(self, _request: Request) -> Response:
        return JSONResponse({"items": []})


@pytest.mark.timeout(BOUND_SECONDS)
async def test_nothing_that_can_be_sent_makes_the_control_plane_break_its_word(database: str, tmp_path: Path) -> None:
    async with serving(QuickManager().app()) as manager, replica_at(database, manager, provider_mode="scripted") as replica:
        found = await faults(replica.url, "admin", tmp_path, without=OPEN_STREAMS)
        assert not found, found
