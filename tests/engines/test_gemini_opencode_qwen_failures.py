"""Each failure of the model, as gemini-cli, opencode and qwen-code tell it: which of ours it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from shared.contracts.events import AttemptOutcome, MessageDelta, RetryScheduled
from shared.errors import ErrorCode
from tests.engines import gemini_opencode_qwen as rows
from tests.engines.gemini_opencode_qwen import KEY, Engine
from tests.loopback import unused_port

pytestmark = pytest.mark.engine
row, executable, stub, engine = rows.row, rows.executable, rows.stub, rows.engine

FAILURES = {
    "401": ErrorCode.AUTH_FAILED,
    "403": ErrorCode.AUTH_FAILED,
    "404": ErrorCode.MODEL_NOT_FOUND,
    "429": ErrorCode.RATE_LIMITED,
    "quota": ErrorCode.QUOTA_EXCEEDED,
    "500": ErrorCode.MODEL_UNAVAILABLE,
    "529": ErrorCode.MODEL_UNAVAILABLE,
    "toolong": ErrorCode.CONTEXT_OVERFLOW,
    "cut": ErrorCode.MODEL_UNAVAILABLE,
    "empty": ErrorCode.ENGINE_NO_OUTPUT,
    "refused": ErrorCode.NETWORK_ERROR,
}
CUT = "This answer will be cut"
FAILING_AT_ONCE = 6


async def failed(engine: Engine, scenario: str, turn: asyncio.Semaphore) -> tuple[str, str, bool]:
    """What a run ends with whose model fails like this: the code, what was shown of the answer, whether a retry was told."""
    url = f"http://127.0.0.1:{unused_port()}/v1" if scenario == "refused" else engine.stub.base_url
    home = replace(engine, home=engine.home / scenario)
    async with turn, home.running(f"x [[{scenario}]]", provider_options={"baseUrl": url}) as driven:
        outcome = await driven.outcome()
    assert outcome.outcome is AttemptOutcome.ERROR
    assert outcome.error_message
    assert KEY not in outcome.error_message
    said = "".join(each.text for each in driven.payloads(MessageDelta))
    return str(outcome.error_code), said, bool(driven.payloads(RetryScheduled))


async def test_each_failure_of_the_model_is_named(engine: Engine) -> None:
    turn = asyncio.Semaphore(FAILING_AT_ONCE)
    scenarios = sorted(FAILURES.keys() - engine.row.apart)
    ended = await asyncio.gather(*(failed(engine, scenario, turn) for scenario in scenarios))
    told = {scenario: code for scenario, (code, _, _) in zip(scenarios, ended, strict=True)}
    assert told == {scenario: FAILURES[scenario] for scenario in scenarios}
    for scenario, (_, said, retried) in zip(scenarios, ended, strict=True):
        # how much arrives before a connection is reset is not ours to say; that it is shown once is
        assert (CUT if scenario == "cut" else "").startswith(said)
        assert not (retried and scenario in {"401", "403", "404", "toolong"})
        assert retried or scenario not in engine.row.retries
