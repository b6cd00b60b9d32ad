"""The same judgement over what real engines once said: it needs no engine, so it is in ``make test``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.cases import Case
from tests.conformance.engines import ENGINES, Engine
from tests.conformance.ground import ROOT
from tests.conformance.seen import Seen
from tests.conformance.suite import ALL_CASES, judge

RECORDINGS = ROOT / "tests" / "recordings"


def _recorded() -> Iterator[Any]:
    for engine in ENGINES.values():
        for name, folder in engine.recordings.items():
            yield pytest.param(engine, ALL_CASES[name], folder, id=f"{engine.provider}: {name}")


@pytest.mark.parametrize(("engine", "case", "folder"), list(_recorded()))
def test_a_recorded_case_is_what_every_engine_must_show(engine: Engine, case: Case, folder: str) -> None:
    judge(case, Seen.of_recording(RECORDINGS / folder / "events.json"), engine)
