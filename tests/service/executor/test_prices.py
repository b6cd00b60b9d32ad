"""What an attempt cost, as its last event tells it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.service.executor.kit import executor_outside


async def test_the_cost_of_an_engine_that_names_none_is_estimated_from_the_operators_prices(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "mine"\ninput = 2\noutput = 10\n')
    script = json.dumps({"script": [{"usage": {"inputTokens": 1_000, "outputTokens": 100}}, {"say": "hi"}]})
    async with executor_outside(tmp_path / "state", EXECUTOR_PRICES=str(tmp_path / "prices.toml")) as executor:
        await executor.begin(script, model="mine-1")
        priced = (await executor.ended())["usage"]
        await executor.begin(script, "run_2", model="nobody-knows")
        unpriced = (await executor.ended("run_2"))["usage"]
    assert (priced["costUsd"], priced["estimated"]) == (0.003, True)
    assert "costUsd" not in unpriced
