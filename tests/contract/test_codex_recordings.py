"""The Codex adapter against what the real engine said: events, outcome, and what we would have sent."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from executor.adapters.base import Send
from shared.contracts.interactions import Decision, Reply
from tests.contract.replay import RECORDINGS, play
from tests.unit.adapters.splits import cuts

CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/stdout.jsonl"))
SPLIT_CASES = ("app-plain", "app-approve-edit-decline", "app-fail-disconnect", "app-interrupt-tool-clean", "app-steer")
REPLIES = {
    "app-approve-exec-accept": [Reply(decision=Decision.ACCEPT)],
    "app-approve-exec-decline": [Reply(decision=Decision.DECLINE)],
    "app-approve-acceptforsession": [Reply(decision=Decision.ACCEPT_FOR_SESSION)],
    "app-approve-edit-decline": [Reply(answer="decline")],
    "app-ask-user": [Reply(answer="Spaces")],
}
# What a recording sent that we send otherwise, on purpose.
OURS = ("cwd", "approvalPolicy", "sandbox", "modelProvider", "excludeTurns")


def golden(case: str) -> dict[str, Any]:
    return play(case, REPLIES.get(case, [])).golden()


@pytest.mark.parametrize("case", CASES)
def test_a_recording_becomes_the_same_events_and_outcome(case: str) -> None:
    path = RECORDINGS / case / "events.json"
    if os.environ.get("RUNYARD_UPDATE_RECORDINGS"):
        path.write_text(json.dumps(golden(case), indent=1, ensure_ascii=False) + "\n")
    assert golden(case) == json.loads(path.read_text())


@pytest.mark.parametrize("case", CASES)
def test_what_we_send_is_what_the_recorded_client_sent(case: str) -> None:
    played = play(case, REPLIES.get(case, []))
    sent = played.sent[: len(played.recorded)]
    assert [_core(each) for each in sent] == [_core(each) for each in played.recorded]


@pytest.mark.parametrize("case", SPLIT_CASES)
def test_chunking_never_changes_the_steps(case: str) -> None:
    replies = REPLIES.get(case, [])
    whole = play(case, replies).steps
    assert play(case, replies, by_byte=True).steps == whole
    for cut in cuts((RECORDINGS / case / "stdout.jsonl").read_bytes()):
        assert play(case, replies, cut=cut).steps == whole


@pytest.mark.parametrize("case", sorted(REPLIES))
def test_a_request_that_was_answered_is_not_told_as_withdrawn(case: str) -> None:
    kinds = [kind for kind, _ in play(case, REPLIES[case]).events]
    assert "interaction.requested" in kinds
    assert "interaction.resolved" not in kinds


def test_every_line_we_send_is_one_json_object() -> None:
    for case in CASES:
        for step in play(case, REPLIES.get(case, [])).steps:
            if isinstance(step, Send):
                assert step.data.endswith(b"\n")
                assert isinstance(json.loads(step.data), dict)


def _core(sent: Any) -> Any:
    """A message without what we choose differently: who we are, and the thread's settings."""
    if sent.get("method") == "initialize":
        return "initialize"
    if "params" not in sent:
        return sent
    return sent | {"params": {name: value for name, value in sent["params"].items() if name not in OURS}}
