"""The executor takes what its document allows, refuses what it does not, and answers as it says, whatever is sent.

Left out, and tested by hand: the stream of an attempt stays open while it lives (test_provider_runs.py), and a drained
executor is ready for nothing any more (test_drain.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.executor.kit import executor_inside
from tests.service.fuzzing import BOUND_SECONDS, faults

LEFT_OUT = ("get_provider_runs_run_id_stream", "post_executor_drain", "delete_executor_drain")


@pytest.mark.timeout(BOUND_SECONDS)
async def test_nothing_that_can_be_sent_makes_the_executor_break_its_word(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state", auth="on", service_token="t") as executor:
        url = str(executor.http.base_url).rstrip("/")
        found = await faults(url, "t", tmp_path, without=LEFT_OUT, FUZZ_WHOLE_NUMBERS="1")
        assert not found, found
