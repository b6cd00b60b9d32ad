"""The manager takes what its document allows, refuses what it does not, and answers as it says, whatever is sent.

A real executor stands behind it. Left out, and tested by hand: the stream of an attempt stays open while it lives
(test_relay.py), and a drained executor is proposed no more (test_real.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loopback import unused_port
from tests.service.executor.kit import executor_inside
from tests.service.executor_manager.kit import manager_process
from tests.service.fuzzing import BOUND_SECONDS, faults

LEFT_OUT = (
    "get_api_provider_runs_run_id_stream", "post_api_executors_executor_id_drain", "delete_api_executors_executor_id_drain",
)  # fmt: skip


@pytest.mark.timeout(BOUND_SECONDS)
async def test_nothing_that_can_be_sent_makes_the_manager_break_its_word(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", auth="on", service_token="t") as executor:
        keys = {"RUNYARD_AUTH": "on", "RUNYARD_SERVICE_TOKEN": "t"}
        async with manager_process(str(executor.http.base_url).rstrip("/"), unused_port(), **keys) as manager:
            found = await faults(manager.url, "t", tmp_path, without=LEFT_OUT, FUZZ_WHOLE_NUMBERS="1", FUZZ_PROVIDER="scripted")
    assert not found, found
