"""The limits of a run from its caller to its engine: what is set where, who is refused, how each ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.e2e.kit import Stack, script

DAY_MS = 86_400_000
HANG = script({"say": "x"}, {"hang": True})
BUSY = script({"repeat": {"count": 100_000, "everyMs": 10, "say": "tick {i}"}})
ASK = {"ask": {"prompt": "?"}}


async def started(stack: Stack, run_id: str) -> dict[str, Any]:
    """The limits the executor held the run to."""
    return next(event["data"]["timeouts"] for event in await stack.events(run_id) if event["kind"] == "attempt.started")


async def registered(stack: Stack, app_id: str, **defaults: Any) -> None:
    body = {"appId": app_id, "name": app_id, "visibilityRules": [{"scope": "all"}], "runtimeDefaults": defaults}
    answer = await stack.client.post("/api/apps/register", json=body)
    assert answer.status_code in (200, 201), answer.text


@pytest.mark.parametrize(
    ("prompt", "options", "code", "said"),
    [
        (BUSY, {"timeoutMs": 600}, "timeout", "the run took longer than 600 ms (providerOptions.timeoutMs)"),
        (BUSY, {"runTimeoutMs": 600}, "timeout", "the run took longer than 600 ms (providerOptions.runTimeoutMs)"),
        (HANG, {"idleTimeoutMs": 500}, "idle_timeout", "no output for 500 ms; the last event was message.completed"),
        (
            script({"hang": True}), {"firstEventTimeoutMs": 60_000, "idleTimeoutMs": 500}, "idle_timeout", "no output for 500 ms",
        ),
    ],
    ids=["run", "run by its other name", "idle", "idle from the start"],
)  # fmt: skip
async def test_a_run_past_a_limit_ends_in_timeout_and_says_which(
    stack: Stack, prompt: str, options: dict[str, int], code: str, said: str
) -> None:
    run_id = await stack.start(prompt, providerOptions=options)
    shown = await stack.until(run_id)
    assert (shown["status"], shown["errorCode"]) == ("timeout", code)
    assert shown["errorMessage"].startswith(said)
    await stack.check(run_id)


async def test_every_limit_stands_in_the_first_event_of_the_attempt_with_its_rule(stack: Stack) -> None:
    options = {"idleTimeoutMs": 50_001, "firstEventTimeoutMs": 50_002, "interactionTimeoutMs": 50_003, "timeoutMs": 50_004}
    chosen, plain = await stack.start("x", providerOptions=options), await stack.start("x")
    await stack.until(chosen)
    await stack.until(plain)
    limits = await started(stack, chosen)
    assert (limits["runMs"], limits["rule"]) == (50_004, "providerOptions.timeoutMs")
    assert [limits[name] for name in ("idleMs", "firstEventMs", "interactionMs")] == [50_001, 50_002, 50_003]
    assert limits["rules"] == {
        "idleMs": "providerOptions.idleTimeoutMs", "firstEventMs": "providerOptions.firstEventTimeoutMs",
        "interactionMs": "providerOptions.interactionTimeoutMs",
    }  # fmt: skip
    limits = await started(stack, plain)
    assert (limits["runMs"], limits["rule"]) == (1_800_000, "EXECUTOR_RUN_TIMEOUT_MS")
    assert set(limits["rules"].values()) == {"default"}
    assert "appMs" not in limits


async def test_the_request_stands_above_its_app_and_the_app_above_the_table(stack: Stack) -> None:
    await registered(stack, "patient", timeoutMs=77_000)
    cases = [
        ({"executionProfile": "patient"}, 77_000, "app"),
        ({"executionProfile": "patient", "providerOptions": {"timeoutMs": 55_000}}, 55_000, "providerOptions.timeoutMs"),
        ({"executionProfile": "patient", "providerOptions": {"runTimeoutMs": 55_000}}, 55_000, "providerOptions.runTimeoutMs"),
        ({"providerOptions": {"timeoutMs": 5_000, "runTimeoutMs": 6_000}}, 5_000, "providerOptions.timeoutMs"),
    ]
    for request, run_ms, rule in cases:
        run_id = await stack.start("x", **request)
        await stack.until(run_id)
        limits = await started(stack, run_id)
        assert (limits["runMs"], limits["rule"]) == (run_ms, rule), request


@pytest.mark.parametrize("option", ["timeoutMs", "runTimeoutMs", "idleTimeoutMs", "firstEventTimeoutMs"])
async def test_a_caller_above_the_bound_is_refused_by_name_and_there_is_no_run(stack: Stack, option: str) -> None:
    before = (await stack.client.get("/api/runs", params={"limit": 1})).json()["items"]
    body = {"provider": "scripted", "prompt": "x", "providerOptions": {option: DAY_MS + 1}}
    answer = await stack.client.post("/api/runs/start", json=body)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [f"providerOptions.{option}"])
    assert str(DAY_MS) in answer.json()["errors"][0]["message"]
    after = (await stack.client.get("/api/runs", params={"limit": 1})).json()["items"]
    assert [run["runId"] for run in after] == [run["runId"] for run in before]
    assert (await stack.start("x", providerOptions={option: DAY_MS})).startswith("run_")


async def test_waiting_for_a_person_costs_no_time_of_the_run_and_its_work_after_it_does(stack: Stack) -> None:
    limits = {"timeoutMs": 1_500, "idleTimeoutMs": 700}
    run_id = await stack.start(script(ASK, {"repeat": {"count": 100_000, "everyMs": 10, "say": "tick"}}), providerOptions=limits)
    question = await stack.question(run_id)
    asked = time.monotonic()
    async with asyncio.timeout(20):
        while time.monotonic() - asked < 2.5:
            assert (await stack.show(run_id))["status"] == "waiting_user"
            await asyncio.sleep(0.05)  # polling a condition with a bound
    assert (await stack.reply(run_id, question["questionId"], answer="yes")).status_code == 200
    shown = await stack.until(run_id)
    assert (shown["status"], shown["errorCode"]) == ("timeout", "timeout")
    events = await stack.check(run_id)
    ticks = sum(event["kind"] == "message.completed" for event in events)
    assert ticks > 10, "the run had its time after the answer"
    ended = next(event["data"] for event in events if event["kind"] == "attempt.ended")
    assert 1_500 <= ended["activeMs"] < 2_500 + 1_500


async def test_a_question_expires_by_its_own_limit_long_before_the_others(stack: Stack) -> None:
    run_id = await stack.start(script(ASK), providerOptions={"interactionTimeoutMs": 400, "timeoutMs": DAY_MS})
    shown = await stack.until(run_id)
    assert (shown["status"], shown["errorCode"]) == ("error", "interaction_expired")
    assert (await started(stack, run_id))["interactionMs"] == 400
    await stack.check(run_id)
