"""The same judgement over what real engines once said: it needs no engine, so it is in ``make test``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import Case
from tests.conformance.engines import ENGINES, Engine
from tests.conformance.ground import ROOT
from tests.conformance.replay import replayed
from tests.conformance.seen import Seen
from tests.conformance.suite import ALL_CASES, judge

RECORDINGS = ROOT / "tests" / "recordings"
OWN = RECORDINGS / "conformance"


def _recorded() -> Iterator[Any]:
    for engine in ENGINES.values():
        for name, folder in engine.recordings.items():
            yield pytest.param(engine, ALL_CASES[name], folder, id=f"{engine.provider}: {name}")


@pytest.mark.parametrize(("engine", "case", "folder"), list(_recorded()))
def test_a_recorded_case_is_what_every_engine_must_show(engine: Engine, case: Case, folder: str) -> None:
    judge(case, Seen.of_recording(RECORDINGS / folder / "events.json"), engine)


def _own() -> Iterator[Any]:
    for path in sorted(OWN.glob("*/*/transcript.jsonl")):
        folder, named = path.parent, path.parent.parent.name
        engine = next(each for each in ENGINES.values() if each.provider == named)
        case = ALL_CASES[(folder / "case.txt").read_text().strip()]
        yield pytest.param(engine, case, folder, id=f"{engine.provider}: {case.name}")


@pytest.mark.parametrize(("engine", "case", "folder"), list(_own()))
def test_what_was_recorded_with_our_own_conversation_plays_out_the_same(engine: Engine, case: Case, folder: Path) -> None:
    seen, sent, recorded = replayed(engine, case, folder)
    judge(case, seen, engine)
    assert sent == recorded
    kept = folder / "events.json"
    if os.environ.get("RUNYARD_UPDATE_RECORDINGS"):
        kept.write_text(json.dumps(seen.golden(), indent=1, ensure_ascii=False) + "\n")
    assert seen.golden() == json.loads(kept.read_text())
