"""Real engines that wait for a person are parked: their process goes, and with the answer their session goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from shared.contracts.runs import TERMINAL
from tests.conformance.cases import MAKE, WORD
from tests.conformance.engines import Engine
from tests.conformance.ground import ENGINES_DIR, KEYS
from tests.conformance.test_client_script import LIVING, stack, stub
from tests.e2e.conftest import make_folder
from tests.e2e.kit import Stack, no_process_of, running_stack
from tests.engines.test_codex_through_services import of_kind
from tests.model_stub.server import ModelStub

pytestmark = pytest.mark.engine
__all__ = ["stack", "stub"]  # the fixtures

PARKED_SECONDS = 60


@pytest.fixture(scope="module")
def engine_stack() -> Generator[Stack]:
    given = {"RUNYARD_ENGINES_DIR": str(ENGINES_DIR), "RUNYARD_PARK_SECONDS": "0.5", **KEYS}
    with make_folder() as folder, running_stack(folder / "state", environment=given) as stack:
        yield stack


async def decline(stack: Stack, shown: dict[str, Any]) -> None:
    """Every open question; one that was answered a moment ago is open no longer."""
    for each in shown["pendingQuestions"]:
        answer = await stack.reply(shown["runId"], each["questionId"], decision="decline", message="not today")
        assert answer.status_code in {200, 409}, answer.text


@pytest.mark.parametrize("engine", LIVING, ids=lambda engine: engine.provider)
async def test_an_engine_that_was_parked_is_told_the_answer_in_its_session(stack: Stack, stub: ModelStub, engine: Engine) -> None:
    given = {"provider": engine.provider, "model": engine.model, "providerOptions": {"baseUrl": stub.base_url}}
    run_id = await stack.start(f"remember {WORD} [[tool:{MAKE}]]", **given)
    async with asyncio.timeout(PARKED_SECONDS):
        while (shown := await stack.show(run_id))["phase"] != "parked":
            assert shown["status"] not in TERMINAL, shown
            await asyncio.sleep(0.05)  # polling a condition with a bound
    assert shown["status"] == "waiting_user"
    assert no_process_of(run_id)
    await decline(stack, shown)
    # An engine that merges what it was asked before with what it is told now may ask again.
    while (shown := await stack.until(run_id, "waiting_user", *TERMINAL))["status"] == "waiting_user":
        await decline(stack, shown)
    events = await stack.check(run_id)
    assert shown["status"] == "success", (shown["errorMessage"], events)
    *before, last = [data["outcome"] for data in of_kind(events, "attempt.ended")]
    assert (set(before), last) == ({"parked"}, "success")
    assert len({data["engineSession"] for data in of_kind(events, "session.started")}) == 1
    assert of_kind(events, "attempt.started")[1]["resumed"] is True
    asked = str(stub.requests[-1]["body"])
    assert WORD in asked, "the engine does not remember what was before it was parked"
    assert "not today" in asked, "the engine was not told the answer"
