"""How the real Claude Code fails, told in our words: against a model that refuses, breaks off, or is not there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from shared.contracts.events import AttemptOutcome, MessageCompleted, MessageDelta, RetryScheduled, SessionStarted
from shared.errors import ERRORS, ErrorCode
from tests.engines.test_claude import executable, running
from tests.model_stub.server import ModelStub, serving

pytestmark = pytest.mark.engine
__all__ = ["executable"]  # the fixture


@pytest.fixture
async def stub() -> AsyncGenerator[ModelStub]:
    async with serving() as running:
        yield running


@pytest.mark.parametrize(
    ("scenario", "code", "retryable", "retries", "within_seconds"),
    [
        ("429now", ErrorCode.RATE_LIMITED, True, 2, 15),
        ("quota", ErrorCode.QUOTA_EXCEEDED, False, 2, 15),
        ("500", ErrorCode.MODEL_UNAVAILABLE, True, 2, 15),
        ("cut", ErrorCode.MODEL_UNAVAILABLE, True, 2, 15),
        ("failed", ErrorCode.MODEL_UNAVAILABLE, True, 0, 10),
    ],
)
async def test_a_failure_of_the_model_is_named_soon(
    tmp_path: Path,
    executable: str,
    stub: ModelStub,
    scenario: str,
    code: ErrorCode,
    retryable: bool,
    retries: int,
    within_seconds: float,
) -> None:
    began = time.monotonic()
    async with running(tmp_path, executable, stub.base_url, f"x [[{scenario}]]") as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, code), outcome.error_message
    assert ERRORS[code].retryable is retryable
    assert outcome.error_message
    assert time.monotonic() - began < within_seconds
    assert len(engine.payloads(RetryScheduled)) == retries
    expected = {ErrorCode.RATE_LIMITED if scenario == "quota" else code} if retries else set()
    assert {each.error_code for each in engine.payloads(RetryScheduled)} == expected
    assert all(each.delay_ms for each in engine.payloads(RetryScheduled))
    told = {"cut": "This answer will be cut", "failed": "This answer will fail"}.get(scenario, "")
    said = "".join(each.text for each in engine.payloads(MessageDelta))
    assert told.startswith(said), "of what a cut overtakes, the engine may tell a part, and only once"
    assert not any(each.final for each in engine.payloads(MessageCompleted))
    for each in engine.payloads(MessageCompleted):
        assert told.startswith(each.text), "the reason of a failure was told as an answer"
    assert engine.payloads(SessionStarted)


async def test_what_is_said_again_after_a_broken_stream_is_shown_once(tmp_path: Path, executable: str, stub: ModelStub) -> None:
    async with running(tmp_path, executable, stub.base_url, "[[cutonce:one two three four five six]]") as engine:
        outcome = await engine.outcome()
    assert (outcome.outcome, outcome.result) == (AttemptOutcome.SUCCESS, "one two three four five six")
    [whole] = engine.payloads(MessageCompleted)
    assert (whole.text, whole.final) == (outcome.result, True)
    assert whole.text.startswith("".join(each.text for each in engine.payloads(MessageDelta)))
    assert {each.message_id for each in engine.payloads(MessageDelta)} <= {whole.message_id}
    assert len(stub.requests) == 2
