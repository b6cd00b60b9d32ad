"""The Claude Code adapter against what the real engine said: events, outcome, and what we would have sent."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from executor.adapters.base import Send
from shared.contracts.interactions import Decision, Reply
from tests.contract.replay import ALL_RECORDINGS, Played, play
from tests.contract.replay_claude import player_of
from tests.unit.adapters.splits import cuts

RECORDINGS = ALL_RECORDINGS / "claude"
CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/stdout.jsonl"))
SPLIT_CASES = ("inter-deny-interrupt", "cut-once", "fail-401", "helper", "message-during-tool", "tasks")
ACCEPT = Reply(decision=Decision.ACCEPT)
REPLIES = {
    "inter-allow-always": [Reply(decision=Decision.ACCEPT_FOR_SESSION)],
    "inter-ask-user": [Reply(answer="Spaces")],
    "inter-deny": [Reply(decision=Decision.DECLINE, message="The human said no")],
    "inter-deny-interrupt": [Reply(decision=Decision.DECLINE_AND_STOP, message="stop")],
    "inter-edit-allow": [ACCEPT],
    "helper": [ACCEPT],
    "message-during-tool": [ACCEPT],
    "plan-accept": [ACCEPT],
}


def played(case: str, **how: Any) -> Played:
    return play(case, REPLIES.get(case, []), player=player_of(case), **how)


@pytest.mark.parametrize("case", CASES)
def test_a_recording_becomes_the_same_events_and_outcome(case: str) -> None:
    path = RECORDINGS / case / "events.json"
    golden = played(case).golden()
    if os.environ.get("RUNYARD_UPDATE_RECORDINGS"):
        path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    assert golden == json.loads(path.read_text())


@pytest.mark.parametrize("case", [case for case in CASES if (RECORDINGS / case / "stdin.jsonl").exists()])
def test_what_we_send_is_what_the_recorded_client_sent(case: str) -> None:
    ours = played(case)
    assert ours.recorded
    assert [_core(each) for each in ours.sent[: len(ours.recorded)]] == [_core(each) for each in ours.recorded]


@pytest.mark.parametrize("case", SPLIT_CASES)
def test_chunking_never_changes_the_steps(case: str) -> None:
    whole = played(case).steps
    assert played(case, by_byte=True).steps == whole
    for cut in cuts((RECORDINGS / case / "stdout.jsonl").read_bytes()):
        assert played(case, cut=cut).steps == whole


@pytest.mark.parametrize("case", sorted(REPLIES))
def test_a_request_that_was_answered_is_not_told_as_withdrawn(case: str) -> None:
    kinds = [kind for kind, _ in played(case).events]
    assert "interaction.requested" in kinds
    assert "interaction.resolved" not in kinds


@pytest.mark.parametrize("case", CASES)
def test_a_success_has_one_final_message_and_a_failure_none(case: str) -> None:
    golden = json.loads((RECORDINGS / case / "events.json").read_text())
    finals = [data["text"] for kind, data in golden["events"] if kind == "message.completed" and data["final"]]
    result = golden["result"]
    assert finals == (
        [] if result is None else [result if isinstance(result, str) else json.dumps(result, separators=(",", ":"))]
    )


def test_every_line_we_send_is_one_json_object() -> None:
    for case in CASES:
        for step in played(case).steps:
            if isinstance(step, Send):
                assert step.data.endswith(b"\n")
                assert isinstance(json.loads(step.data), dict)


def _core(sent: Any) -> Any:
    """A message without the ids that each client chooses for itself, and what the older recordings' client did not ask for."""
    core = {name: value for name, value in sent.items() if name not in ("uuid", "request_id")}
    is_hello = sent.get("request", {}).get("subtype") == "initialize"
    return core | ({"request": core["request"] | {"forwardSubagentText": True}} if is_hello else {})
