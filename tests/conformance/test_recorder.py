"""``scripts/record_engine.py``: what is recorded anew is in substance what is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.engines import ENGINES, Engine
from tests.conformance.recorder import compared, record
from tests.conformance.suite import ALL_CASES, judge
from tests.conformance.test_recordings import OWN
from tests.service.scripts.commands import run_script

IS_WHOLE = bool(os.environ.get("ALL"))
# How much an engine still says before it fails or is interrupted is a matter of milliseconds.
WHOLE = [path.parent for path in OWN.glob("*/*/case.txt") if not path.parent.name.startswith(("fails-", "interrupt"))]
KEPT = sorted(folder for folder in WHOLE if IS_WHOLE or folder.name == "approve")


def engine_of(folder: Path) -> Engine:
    return next(each for each in ENGINES.values() if each.provider == folder.parent.name)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.engine
@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: f"{folder.parent.name}: {folder.name}")
async def test_a_case_recorded_anew_differs_in_nothing_from_the_kept_one(folder: Path, tmp_path: Path) -> None:
    engine, case = engine_of(folder), ALL_CASES[(folder / "case.txt").read_text().strip()]
    recording = await record(engine, case, tmp_path / "home")
    judge(case, recording.seen, engine)
    assert compared(folder, recording)[0] == []
    recording.write(tmp_path / "recording")
    assert names_in(tmp_path / "recording") == names_in(folder) - {"events.json"}


async def test_the_cases_of_an_engine_are_listed() -> None:
    ended = await run_script("record_engine", "codex")
    assert ended.status == 0
    assert "deny with message" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nobody"], "there is nothing to record of 'nobody'; known: codex-app-server"),
        (["iflow", "plain"], "there is nothing to record of 'iflow'"),
        (["codex", "juggle"], "codex-app-server has no case 'juggle'"),
        (["gemini", "question"], "gemini-cli has no case 'question'"),
    ],
)
async def test_what_cannot_be_recorded_is_a_usage_error(arguments: list[str], reason: str) -> None:
    ended = await run_script("record_engine", *arguments)
    assert ended.status == 64
    assert reason in ended.stderr
