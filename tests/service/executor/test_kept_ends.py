"""How long an attempt that ended waits to be released: by the machine's steady clock, never by the one on the wall."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executor.attempts import live_runs
from shared.clock import monotonic
from tests.service.executor.kit import Inside, executor_inside, until

YEAR = 365 * 24 * 3600.0


async def forgets(here: Inside, monkeypatch: pytest.MonkeyPatch, after_seconds: float) -> bool:
    """Whether the attempt is gone once so much time has passed."""
    with monkeypatch.context() as later:
        later.setattr(live_runs, "monotonic", lambda: monotonic() + after_seconds)
        here.app.runs.release_old()
    return (await here.http.get("/provider-runs/run_1")).status_code == 404


async def ended_unread(here: Inside) -> None:
    await here.begin("echo done")
    await until(lambda: not here.app.runs.live())


async def test_an_end_nobody_heard_waits_a_week_whatever_the_wall_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ended_unread(here)
    for note in (tmp_path / "state").rglob("ended.json"):
        os.utime(note, (0, 0))
    async with executor_inside(tmp_path / "state") as here:
        assert not await forgets(here, monkeypatch, 0)
        assert not await forgets(here, monkeypatch, live_runs.KEEP_READ_SECONDS + 60)
        assert (await here.ended())["outcome"] == "success"
        assert await forgets(here, monkeypatch, live_runs.KEEP_READ_SECONDS + 60)


async def test_a_step_of_the_clock_on_the_wall_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with executor_inside(tmp_path / "state") as here:
        await ended_unread(here)
        now = here.app.runs._now()
        monkeypatch.setattr(here.app.runs, "_now", lambda: now.replace(year=now.year + 1))
        assert not await forgets(here, monkeypatch, 0)
        assert await forgets(here, monkeypatch, YEAR)
