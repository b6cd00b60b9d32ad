"""What the Claude Code conversation does where no recording went: odd orders, retries, lines nobody knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, CloseInput, Emit, StartRequest
from executor.adapters.framing import MAX_LINE_BYTES
from shared.contracts.events import AttemptOutcome
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from tests.unit.adapters.claude_lines import (
    INIT,
    INITIALIZED,
    asks,
    called,
    conversation,
    emitted,
    feed,
    replayed,
    result,
    retry,
    said,
    sent,
    working,
)

# ---- the handshake, messages, the end ----


def test_the_prompt_follows_the_handshake_and_messages_follow_the_prompt() -> None:
    claude = conversation()
    assert [each["request"]["subtype"] for each in sent(claude.opened())] == ["initialize"]
    assert claude.message("also this") == []
    users = sent(feed(claude, INITIALIZED))
    assert [each["message"]["content"][0]["text"] for each in users] == ["hi", "also this"]
    assert len({each["uuid"] for each in users}) == 2


def test_no_two_attempts_say_anything_under_the_same_id() -> None:
    uuids: set[str] = set()
    for run, attempt in (("a", 1), ("a", 2), ("b", 1)):
        request = StartRequest(
            run_id=run, attempt=attempt, executable="/claude", home="/h", workspace="/w", messages=[Message(content="hi")],
            credential_env={"ANTHROPIC_API_KEY": "k"},
        )  # fmt: skip
        claude = ADAPTERS[Provider.CLAUDE_CODE].resume(request, "s1")
        claude.opened()
        uuids |= {each["uuid"] for each in sent(feed(claude, INITIALIZED))}
    assert len(uuids) == 3


def test_a_schema_goes_with_the_handshake_and_the_answer_is_the_object() -> None:
    schema = {"type": "object"}
    claude = conversation(output_schema=schema)
    assert sent(claude.opened())[0]["request"]["jsonSchema"] == schema
    feed(claude, INITIALIZED, INIT, result('{"a":1}', structured_output={"a": 1}))
    assert claude.ended(0).result == {"a": 1}


def test_an_answer_that_passed_by_the_schema_stays_the_text_it_is() -> None:
    claude = working(output_schema={"type": "object"})
    feed(claude, result('{"a":1}'))
    assert claude.ended(0).result == '{"a":1}', "the executor reads it, for every engine alike"


def test_the_skills_to_use_are_named_in_the_prompt() -> None:
    claude = conversation(provider_options={"skills": ["pruning", "peeling"]})
    claude.opened()
    [prompt] = sent(feed(claude, INITIALIZED))
    assert prompt["message"]["content"][0]["text"] == "hi\n\nUse these skills: pruning, peeling."


def test_a_refused_handshake_ends_the_attempt_with_its_reason() -> None:
    claude = conversation()
    claude.opened()
    refused = {"type": "control_response", "response": {"subtype": "error", "request_id": "req_1", "error": "because"}}
    assert feed(claude, refused) == [CloseInput()]
    outcome = claude.ended(0)
    assert (outcome.error_code, outcome.error_message) == (ErrorCode.ENGINE_PROTOCOL_ERROR, "because")


def test_the_end_waits_for_a_message_that_is_not_taken_yet() -> None:
    claude = working()
    [message] = sent(claude.message("more"))
    first = feed(claude, said("one"), result("one"))
    assert CloseInput() not in first, "the message on its way would be lost"
    assert ("message.completed", {"messageId": "m1-0", "text": "one", "final": False}) in emitted(first)
    assert emitted(feed(claude, INIT, replayed(message))) == [], "a session was told twice, or our own message shown"
    last = feed(claude, said("two", "m2"), result("two"))
    assert last[-1] == CloseInput()
    assert emitted(last)[-1] == ("message.completed", {"messageId": "m2-0", "text": "two", "final": True})
    assert claude.ended(0).result == "two"


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_further_turn_that_never_ended_is_not_told_as_the_one_before(is_stopped: bool) -> None:
    claude = working()
    [message] = sent(claude.message("more"))
    feed(claude, said("one"), result("one"), replayed(message), INIT)
    if is_stopped:
        claude.interrupt()
    ended = claude.ended(-9)
    assert ended.outcome is (AttemptOutcome.CANCELED if is_stopped else AttemptOutcome.ERROR)
    assert ended.result is None


def test_a_message_that_joined_the_turn_lets_it_end() -> None:
    claude = working()
    [message] = sent(claude.message("more"))
    assert feed(claude, replayed(message), said("one"), result("one"))[-1] == CloseInput()


def test_after_the_end_no_message_is_taken() -> None:
    claude = working()
    feed(claude, result())
    with pytest.raises(RunyardError, match="conflict"):
        claude.message("late")


def test_an_answer_that_was_never_told_as_a_message_is_told_once_as_one() -> None:
    assert emitted(feed(working(), said("thinking aloud"), result("the answer"))) == [
        ("message.completed", {"messageId": "m1-0", "text": "thinking aloud", "final": False}),
        ("message.completed", {"messageId": "answer", "text": "the answer", "final": True}),
    ]


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_message_that_was_never_taken_is_told(is_ready: bool) -> None:
    claude = working() if is_ready else conversation()
    claude.message("more")
    claude.interrupt()
    [(kind, data)] = emitted(claude.end_of(STDOUT))
    assert (kind, data["code"]) == ("diagnostic", "message_undeliverable")
    assert data["message"].startswith("1 further")
    assert emitted(claude.end_of(STDOUT)) == []


def test_the_prompt_alone_is_no_further_message() -> None:
    assert emitted(conversation().end_of(STDOUT)) == []
    assert emitted(working().end_of(STDOUT)) == []


def test_an_option_nobody_knows_is_told_and_changes_nothing() -> None:
    claude = conversation(provider_options={"baseUrl": "http://gw.test", "reasoningSumary": "x", "timeoutMs": 5})
    told = emitted(claude.opened())
    assert [(kind, data["code"]) for kind, data in told] == [("diagnostic", "option_ignored")]
    assert "reasoningSumary" in told[0][1]["message"]


# ---- stop ----


def test_an_interrupt_before_the_handshake_closes_at_once() -> None:
    claude = conversation()
    claude.opened()
    assert claude.interrupt() == [CloseInput()]
    assert claude.interrupt() == []
    assert feed(claude, INITIALIZED) == [], "the prompt was sent after all"
    assert claude.ended(0).outcome is AttemptOutcome.CANCELED


def test_a_turn_that_was_finished_before_the_interrupt_counts() -> None:
    claude = working()
    assert [each["request"]["subtype"] for each in sent(claude.interrupt())] == ["interrupt"]
    assert feed(claude, said("done"), result("done"))[-1] == CloseInput()
    assert claude.ended(0).outcome is AttemptOutcome.SUCCESS


def test_an_interrupted_turn_is_canceled_whatever_is_left_to_take() -> None:
    claude = working()
    claude.message("more")
    claude.interrupt()
    aborted = result(None, subtype="error_during_execution", is_error=True, terminal_reason="aborted_streaming")
    assert feed(claude, aborted) == [CloseInput()]
    assert claude.ended(1).outcome is AttemptOutcome.CANCELED


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [
        (0, ErrorCode.ENGINE_NO_OUTPUT),
        (1, ErrorCode.ENGINE_EXIT_NONZERO),
        (-9, ErrorCode.ENGINE_EXIT_NONZERO),
        (None, ErrorCode.ENGINE_START_FAILED),
    ],
)
def test_an_exit_without_a_result_is_an_error(exit_code: int | None, code: ErrorCode) -> None:
    outcome = working().ended(exit_code)
    assert (outcome.outcome, outcome.error_code) == (AttemptOutcome.ERROR, code)


def test_a_success_that_says_it_failed_has_failed() -> None:
    claude = working()
    steps = feed(claude, result("API Error: 500", is_error=True, api_error_status=500))
    assert "message.completed" not in [kind for kind, _ in emitted(steps)]
    assert claude.ended(1).error_code is ErrorCode.MODEL_UNAVAILABLE


# ---- retries ----


def test_a_retry_is_told() -> None:
    [(kind, told)] = emitted(feed(working(), retry(error="server_error")))
    assert (kind, told["by"], told["errorCode"]) == ("retry.scheduled", "engine", "model_unavailable")
    assert (told["attempt"], told["delayMs"]) == (1, 500)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"error_status": 401}, ErrorCode.AUTH_FAILED),
        ({"attempt": 3}, ErrorCode.MODEL_UNAVAILABLE),
        ({"error_status": 429, "retry_delay_ms": 3_600_000.0}, ErrorCode.RATE_LIMITED),
    ],
)
def test_a_retry_that_cannot_help_ends_the_attempt(more: dict[str, Any], code: ErrorCode) -> None:
    claude = working()
    steps = feed(claude, retry(**more))
    assert [each["request"]["subtype"] for each in sent(steps)] == ["interrupt"]
    assert sent(feed(claude, retry(**more))) == [], "it was interrupted twice"
    aborted = result(None, subtype="error_during_execution", is_error=True, terminal_reason="aborted_streaming")
    assert feed(claude, aborted)[-1] == CloseInput()
    assert (claude.ended(1).outcome, claude.ended(1).error_code) == (AttemptOutcome.ERROR, code)
    with pytest.raises(RunyardError, match="conflict"):
        claude.message("go on")


def test_after_a_stop_no_retry_is_a_failure() -> None:
    claude = working()
    claude.interrupt()
    assert sent(feed(claude, retry(error_status=401))) == []
    feed(claude, result(None, subtype="error_during_execution", is_error=True, terminal_reason="aborted_streaming"))
    assert claude.ended(1).outcome is AttemptOutcome.CANCELED


# ---- lines ----


def test_lines_nobody_claims_are_shown_and_known_noise_is_not() -> None:
    claude = working()
    assert emitted(feed(claude, {"type": "brand_new"}))[0][0] == "raw.stdout"
    assert emitted(feed(claude, {"type": "system", "subtype": "brand_new"}))[0][0] == "raw.stdout"
    assert feed(claude, {"type": "system", "subtype": "status", "status": "requesting"}) == []
    assert feed(claude, {"type": "keep_alive"}) == []
    assert emitted(claude.feed(STDOUT, b"not json\n")) == [("raw.stdout", {"text": "not json"})]
    assert emitted(claude.feed(STDERR, b"\x1b[2mgrey\x1b[0m\n")) == [("raw.stderr", {"text": "grey"})]


def test_a_known_line_we_cannot_read_is_a_diagnostic_with_the_line() -> None:
    [(kind, data)] = emitted(feed(working(), {"type": "assistant", "message": 3}))
    assert (kind, data["code"]) == ("diagnostic", "undecodable_line")
    assert "assistant" in data["message"]


@pytest.mark.parametrize(("status", "told"), [("allowed", 0), ("allowed_warning", 1), ("rejected", 1)])
def test_an_accounts_limit_is_told_when_it_comes_near(status: str, told: int) -> None:
    event = {"type": "rate_limit_event", "rate_limit_info": {"status": status, "rateLimitType": "five_hour"}}
    notices = emitted(feed(working(), event))
    assert [data["code"] for _, data in notices] == ["claude_rate_limit"] * told


def giant(line: dict[str, Any]) -> bytes:
    return json.dumps(line | {"padding": "x" * MAX_LINE_BYTES}, separators=(",", ":")).encode() + b"\n"


def test_a_turn_that_ends_in_a_line_too_long_to_be_read_ends_the_run() -> None:
    claude = working()
    steps = claude.feed(STDOUT, giant(result("x")))
    assert [kind for kind, _ in emitted(steps)] == ["diagnostic"]
    assert CloseInput() in steps
    ended = claude.ended(0)
    assert (ended.outcome, ended.error_code) == (AttemptOutcome.ERROR, ErrorCode.OUTPUT_LIMIT)


def test_a_request_too_long_to_be_read_is_answered() -> None:
    asked = {"type": "control_request", "request_id": "r1", "request": {"subtype": "can_use_tool"}}
    [refused] = sent(working().feed(STDOUT, giant(asked)))
    assert (refused["response"]["subtype"], refused["response"]["request_id"]) == ("error", "r1")


def bottomless(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).replace('"DEEP"', "[" * 3000 + "]" * 3000).encode() + b"\n"


@pytest.mark.parametrize("line", [result(structured_output="DEEP"), result("x", errors=3)])
def test_a_turn_that_ends_in_a_line_that_cannot_be_read_ends_the_run(line: dict[str, Any]) -> None:
    claude = working()
    steps = claude.feed(STDOUT, bottomless(line))
    assert [data["code"] for _, data in emitted(steps)] == ["undecodable_line"]
    assert CloseInput() in steps
    assert claude.ended(0).error_code is ErrorCode.ENGINE_PROTOCOL_ERROR


def test_a_request_that_cannot_be_read_is_answered() -> None:
    steps = working().feed(STDOUT, bottomless(asks("Bash", {"command": "DEEP"}, id="r1")))
    assert [data["code"] for _, data in emitted(steps)] == ["undecodable_line"]
    [refused] = sent(steps)
    assert (refused["response"]["subtype"], refused["response"]["request_id"]) == ("error", "r1")


def test_any_other_line_that_cannot_be_read_ends_nothing() -> None:
    steps = working().feed(STDOUT, bottomless(called("t1", "Bash", {"command": "DEEP"})))
    assert [kind for kind, _ in emitted(steps)] == ["raw.stdout"]


def test_any_other_line_too_long_to_be_read_ends_nothing() -> None:
    steps = working().feed(STDOUT, giant(said("x")))
    assert [kind for kind, _ in emitted(steps)] == ["diagnostic"]
    assert [step for step in steps if not isinstance(step, Emit)] == []


def test_an_interrupt_the_engine_refuses_is_no_failure_of_its_own() -> None:
    claude = working()
    claude.interrupt()
    refused = {"type": "control_response", "response": {"subtype": "error", "request_id": "req_2", "error": "no"}}
    assert feed(claude, refused) == []
    assert claude.ended(0).outcome is AttemptOutcome.CANCELED
