"""Our paths as the executor's: nothing a caller names leads anywhere else."""

from __future__ import annotations

import pytest

from executor_manager.routes import executor_path
from shared.errors import RunyardError

RUN = "/api/provider-runs/{run_id}"


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("/api/provider-runs/start", {}, "/provider-runs/start"),
        (RUN + "/stop", {"run_id": "run_1"}, "/provider-runs/run_1/stop"),
        (RUN + "/stop", {"run_id": "a/b?c#d é"}, "/provider-runs/a%2Fb%3Fc%23d%20%C3%A9/stop"),
        (RUN + "/logs/{stream}", {"run_id": "r", "stream": "stdout"}, "/provider-runs/r/logs/stdout"),
        (RUN + "/files/{path:path}", {"run_id": "r", "path": "a b/ü.txt"}, "/provider-runs/r/files/a%20b/%C3%BC.txt"),
    ],
)
def test_a_path_is_the_same_without_the_prefix(template: str, path: dict[str, str], expected: str) -> None:
    assert executor_path(template, path) == expected


@pytest.mark.parametrize("run_id", [".", ".."])
def test_a_run_id_cannot_climb_out(run_id: str) -> None:
    with pytest.raises(RunyardError):
        executor_path(RUN + "/stop", {"run_id": run_id})
