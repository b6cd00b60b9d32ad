"""Every engine x every case it claims, through the real executor.

The scripted engine is played in ``make test``; the real ones in ``make test-engines``: a slice, or with ``ALL=1`` all of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from tests.conformance.cases import Case
from tests.conformance.engines import ENGINES, Engine
from tests.conformance.ground import BOUND, Executor, Ground, executor_at, ground_for
from tests.conformance.invariants import check, no_secret_in
from tests.conformance.suite import cases_of, play
from tests.conformance.unable import UNABLE, Refusal
from tests.model_stub.server import serving

pytestmark = pytest.mark.timeout(3 * BOUND)

IS_WHOLE = bool(os.environ.get("ALL"))


def _living() -> list[Engine]:
    return [each for each in ENGINES.values() if each.can_be_played]


def _cells() -> Iterator[Any]:
    for engine in _living():
        for case in cases_of(engine):
            is_real = engine.speaks == "marker"
            if is_real and not (case.in_slice or IS_WHOLE):
                continue
            yield pytest.param(engine, case, id=f"{engine.provider}: {case.name}", marks=[pytest.mark.engine] if is_real else [])


def _refusals() -> Iterator[Any]:
    for engine in _living():
        can = ADAPTERS[engine.provider].capabilities
        marks = [pytest.mark.engine] if engine.speaks == "marker" else []
        for refusal in UNABLE:
            if not refusal.is_able(can):
                yield pytest.param(engine, refusal, id=f"{engine.provider}: {refusal.name}", marks=marks)


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Generator[Executor]:
    folder: Path = tmp_path_factory.mktemp("executor")
    with executor_at(folder) as running:
        yield running
    no_secret_in("the executor's own log", running.log.read_bytes())


@pytest.fixture
async def ground(executor: Executor, engine: Engine) -> AsyncGenerator[Ground]:
    async with serving() as stub, ground_for(engine, executor, stub) as ground:
        yield ground


@pytest.mark.parametrize(("engine", "case"), list(_cells()))
async def test_an_engine_does_what_it_claims(ground: Ground, case: Case) -> None:
    await play(case, ground)
    await check(ground)


@pytest.mark.parametrize(("engine", "refusal"), list(_refusals()))
async def test_what_an_engine_cannot_do_is_refused(ground: Ground, refusal: Refusal) -> None:
    await refusal.holds(ground)
    await check(ground)


def test_every_engine_we_can_run_has_a_row() -> None:
    assert ENGINES.keys() == ADAPTERS.keys()
