"""How long a model asks to be left alone, as the engines told it when one did (``Retry-After: 4``, or in its words)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from executor.adapters.asked_waits import LONGEST_MS, asked_wait
from executor.adapters.base import Conversation
from shared.contracts.events import RetryScheduled
from shared.contracts.providers import Provider
from shared.errors import ErrorCode
from tests.contract.replay import ALL_RECORDINGS
from tests.unit.adapters import claude_lines, codex_lines
from tests.unit.adapters.test_acp_conversation import Peer, logged, says_in_log

RATE = ErrorCode.RATE_LIMITED
TPM = "Rate limit reached for gpt-5.5 on tokens per min (TPM): Limit 30000, Used 29000, Requested 3000. Please try again in 4.5s."


@pytest.mark.parametrize(("said", "asked"), [
    (TPM, 4500), ("Rate limit reached\nSuggested retry after 4s.", 4000), ("Suggested retry after 34.074824224s.", 34_075),
    ("Please try again in 20ms.", 20), ("Please retry in 1m30s", 90_000), ("try again in 6m0s.", 360_000),
    ("Try again in 20 seconds", 20_000), ("try again in 2 hours 5 minutes", 7_500_000),
    ("try again in 1000h", LONGEST_MS), (f"retry in {'9' * 400}s", LONGEST_MS),
    ("try again in a while", None), ("please try again later", None), ("try again in 5 sandboxes", None), ("", None),
    ("try again in s", None), ("Rate limit reached (429)", None),
])  # fmt: skip
def test_a_wait_is_read_from_the_models_words(said: str, asked: int | None) -> None:
    assert asked_wait(RATE, said) == asked


def test_the_words_of_the_last_failure_stand_above_what_was_told_before() -> None:
    assert asked_wait(RATE, TPM, 9000) == 4500
    assert asked_wait(RATE, "Rate limit reached", 9000) == 9000


@pytest.mark.parametrize("code", [ErrorCode.QUOTA_EXCEEDED, ErrorCode.AUTH_FAILED, ErrorCode.CONTEXT_OVERFLOW])
def test_what_no_wait_mends_asks_for_none(code: ErrorCode) -> None:
    assert asked_wait(code, TPM, 9000) is None


# ---- Claude Code: its own retry, in whole seconds where the model named them ----


def claude_retry(delay_ms: float, status: int | None = 429, attempt: int = 1) -> dict[str, Any]:
    return {
        "type": "system", "subtype": "api_retry", "attempt": attempt, "max_retries": 2, "retry_delay_ms": delay_ms,
        "error_status": status, "error": "rate_limit",
    }  # fmt: skip


CLAUDE_FAILED = {
    "type": "result", "subtype": "success", "is_error": True, "api_error_status": 429, "session_id": "s1",
    "result": "API Error: Request rejected (429) · Rate limit reached",
}  # fmt: skip
CLAUDE_SPEAKS = {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "m1"}}, "parent_tool_use_id": None}


def claude_asks(*lines: Any) -> int | None:
    claude = claude_lines.working()
    claude_lines.feed(claude, *lines)
    outcome = claude.ended(0)
    assert outcome.error_code is RATE
    return outcome.retry_after_ms


def test_claude_code_tells_it_with_its_last_retry() -> None:
    assert claude_asks(claude_retry(4000), claude_retry(5000, attempt=2), CLAUDE_FAILED) == 5000
    recorded = (ALL_RECORDINGS / "claude" / "fail-429" / "stdout.jsonl").read_text().splitlines()
    assert claude_asks(*(json.loads(line) for line in recorded)) == 2000


def test_what_claude_code_waits_by_itself_is_not_the_models_word() -> None:
    assert claude_asks(claude_retry(4000), claude_retry(1166.5893191354892, attempt=2), CLAUDE_FAILED) is None
    assert claude_asks(claude_retry(1000, status=None), CLAUDE_FAILED) is None


def test_what_was_asked_before_the_model_spoke_again_is_over() -> None:
    assert claude_asks(claude_retry(4000), CLAUDE_SPEAKS, CLAUDE_FAILED) is None


def test_a_wait_that_claude_code_is_not_left_to_is_ours() -> None:
    assert claude_asks(claude_retry(61_000), CLAUDE_FAILED) == 61_000


# ---- Codex: in the words of an answer that failed; it keeps a Retry-After header to itself ----


def codex_asks(error: dict[str, Any]) -> int | None:
    codex = codex_lines.working()
    codex_lines.feed(codex, codex_lines.notice("turn/completed", turn={"id": "tu", "status": "failed", "error": error}))
    outcome = codex.ended(0)
    assert outcome.error_code is RATE
    return outcome.retry_after_ms


def test_codex_passes_on_the_words_of_an_answer_that_failed() -> None:
    words = f"rate limit exceeded: {TPM} Visit https://x for more."
    assert codex_asks({"message": words, "codexErrorInfo": "rateLimitExceeded", "additionalDetails": None}) == 4500


def test_codex_does_not_tell_what_a_header_asked_for() -> None:
    info = {"responseTooManyFailedAttempts": {"httpStatusCode": 429}}
    assert codex_asks({"message": "exceeded retry limit, last status: 429 Too Many Requests", "codexErrorInfo": info}) is None


def test_a_retry_of_codex_after_a_rate_limit_says_so() -> None:
    error = {
        "message": "Reconnecting... 1/2", "additionalDetails": f"rate limit exceeded: {TPM}",
        "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": None}},
    }  # fmt: skip
    told = codex_lines.emitted(codex_lines.feed(codex_lines.working(), codex_lines.notice("error", error=error, willRetry=True)))
    assert [data["errorCode"] for kind, data in told if kind == "retry.scheduled"] == ["rate_limited"]


# ---- ACP: Gemini CLI in its error, Qwen Code in its log, OpenCode nowhere ----


def outcome_asks(conversation: Conversation) -> int | None:
    outcome = conversation.ended(0)
    assert outcome.error_code is RATE
    return outcome.retry_after_ms


def test_gemini_cli_suggests_it_in_its_error() -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    peer.answers("session/prompt", error={"code": 429, "message": "Rate limit reached\nSuggested retry after 4s."})
    assert outcome_asks(peer.conversation) == 4000


NO_QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize("ends", [
    "\n* Quota exceeded for metric: generate_content_free_tier_requests, limit: 10\nPlease retry in 17.3s.",
    "\nSuggested retry after 17.3s.",
])  # fmt: skip
@pytest.mark.parametrize("is_whole_answer", [False, True])
def test_a_limit_of_a_minute_passes_whatever_gemini_calls_it(ends: str, is_whole_answer: bool) -> None:
    told = NO_QUOTA + ends
    peer = Peer(Provider.GEMINI_CLI).prompted()
    message = json.dumps({"error": {"code": 429, "message": told}}) if is_whole_answer else told
    peer.answers("session/prompt", error={"code": 429, "message": message})
    assert outcome_asks(peer.conversation) == 17_300


@pytest.mark.parametrize("said", [NO_QUOTA, "You have exhausted your daily quota on this model.\nSuggested retry after 60s."])
def test_a_quota_that_names_no_end_or_is_a_days_does_not_pass(said: str) -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    peer.answers("session/prompt", error={"code": 429, "message": said})
    outcome = peer.conversation.ended(0)
    assert (outcome.error_code, outcome.retry_after_ms) == (ErrorCode.QUOTA_EXCEEDED, None)


QWEN_FAILED = "2026-11-21T12:51:41.102Z [ERROR] [OPENAI_ERROR] OpenAI API Error: 429 Rate limit reached {"
QWEN_AGAIN = "2026-11-21T12:51:41.113Z [WARN] [RETRY] Attempt {} failed with status 429. Retrying {}... {{"


def test_qwen_code_tells_it_in_its_log() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    for attempt in (1, 2, 3):
        says_in_log(peer, QWEN_FAILED, QWEN_AGAIN.format(attempt, "after explicit delay of 4000ms"))
    assert [each.delay_ms for each in peer.emitted(RetryScheduled)] == [4000, 4000]
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert outcome_asks(peer.conversation) == 4000


def test_a_wait_of_minutes_that_qwen_code_is_not_left_to_is_ours() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    says_in_log(peer, QWEN_FAILED, QWEN_AGAIN.format(1, "after explicit delay of 600000ms"))
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert outcome_asks(peer.conversation) == 600_000


def test_what_qwen_code_waits_by_itself_is_not_the_models_word() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    for attempt in (1, 2, 3):
        waits = "after explicit delay of 4000ms" if attempt == 1 else "with backoff in 2s"
        says_in_log(peer, QWEN_FAILED, QWEN_AGAIN.format(attempt, waits))
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert outcome_asks(peer.conversation) is None


def test_what_was_asked_before_the_model_spoke_to_qwen_code_is_over() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    says_in_log(peer, QWEN_FAILED, QWEN_AGAIN.format(1, "after explicit delay of 4000ms"))
    peer.says_text("Then it worked.")
    peer.answers(
        "session/prompt", error={"code": -32603, "message": "Internal error", "data": {"details": "429 Rate limit reached"}}
    )
    assert outcome_asks(peer.conversation) is None


def test_opencode_tells_no_wait() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    logged(peer, "INFO", "process")
    for _ in range(3):
        logged(peer, "INFO", "stream")
        logged(peer, "ERROR", '"stream error"', ' error.error="AI_APICallError: Rate limit reached"')
    peer.answers("session/prompt", {"stopReason": "cancelled"})
    assert outcome_asks(peer.conversation) is None
