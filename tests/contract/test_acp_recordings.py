"""The ACP client against what the real engines said: events, outcome, and what we would have sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, CloseInput, Conversation, Emit, Outcome, Send, StartRequest, Step
from shared.contracts.events import InteractionRequested
from shared.contracts.interactions import Decision, Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider
from tests.unit.adapters.splits import cuts

RECORDINGS = Path(__file__).parent.parent / "recordings"
PROVIDERS = {"gemini": Provider.GEMINI_CLI, "opencode": Provider.OPENCODE, "qwen": Provider.QWEN_CODE}
CASES = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in RECORDINGS.glob("*/acp-*/transcript.jsonl"))
SPLIT_CASES = ("gemini/acp-fail-disconnect", "opencode/acp-approve")
ACCEPT = [Reply(decision=Decision.ACCEPT)]
REPLIES = {
    "gemini/acp-approve": ACCEPT, "gemini/acp-write-nofs": ACCEPT, "gemini/acp-cancel-tool": ACCEPT,
    "opencode/acp-approve": ACCEPT, "opencode/acp-write-nofs-refused": ACCEPT,
    "qwen/acp-set-mode-default-approve": ACCEPT, "qwen/acp-write-nofs": ACCEPT, "qwen/acp-cancel-tool": ACCEPT,
    "qwen/acp-ask": [Reply(answer="Blue")],
}  # fmt: skip
MODES = {"gemini/acp-set-mode-yolo": EngineMode.FULL}
CREDENTIALS = {"GEMINI_API_KEY": "sk-test", "OPENAI_API_KEY": "sk-test"}

Said = Mapping[str, Any]


@dataclass
class Played:
    """A case up to the first thing its client did that a conversation never does: a second prompt, a list of sessions."""

    conversation: Conversation
    steps: list[Step] = field(default_factory=list[Step])
    recorded: list[Said] = field(default_factory=list[Said])
    ids: dict[int, int] = field(default_factory=dict[int, int])  # the recorded number of a request -> ours

    @property
    def sent(self) -> list[Said]:
        return [json.loads(step.data) for step in self.steps if isinstance(step, Send)]

    @property
    def events(self) -> list[list[Any]]:
        emits = [step for step in self.steps if isinstance(step, Emit)]
        return [[emit.payload.KIND.value, json.loads(emit.payload.wire_json())] for emit in emits]

    @property
    def outcome(self) -> Outcome:
        return self.conversation.ended(0)

    def number_of(self, method: str) -> int | None:
        """Our own number of the first request by this method, once it was sent."""
        return next((said["id"] for said in self.sent if said.get("method") == method), None)


def line(said: Said) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | dict(said), ensure_ascii=False).encode() + b"\n"


@cache
def moves_of(case: str) -> list[tuple[bool, Said]]:
    """(whether the engine said it, what)"""
    texts = (RECORDINGS / case / "transcript.jsonl").read_text().splitlines()
    return [(move["dir"] == "recv", move["msg"]) for move in map(json.loads, texts)]


def conversation_for(case: str, moves: Sequence[tuple[bool, Said]]) -> Conversation:
    """As the case was started: its first prompt, its session to load."""
    sent = [said for is_engines, said in moves if not is_engines]
    prompt = next((each["params"]["prompt"][0]["text"] for each in sent if each.get("method") == "session/prompt"), "hi")
    loaded = next((each["params"]["sessionId"] for each in sent if each.get("method") == "session/load"), None)
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/engines/engine", home="/home/agent", workspace="/workspace",
        messages=[Message(content=prompt)], credential_env=CREDENTIALS, engine_mode=MODES.get(case, EngineMode.ASK),
        provider_options={"baseUrl": "http://127.0.0.1:1/v1"},
    )  # fmt: skip
    adapter = ADAPTERS[PROVIDERS[case.partition("/")[0]]]
    return adapter.start(request) if loaded is None else adapter.resume(request, loaded)


def play(case: str, cut: int | None = None, by_byte: bool = False) -> Played:
    moves = moves_of(case)
    played, left, at = Played(conversation_for(case, moves)), list(REPLIES.get(case, [])), 0
    has_mode = any(said.get("method") == "session/set_mode" for is_engines, said in moves if not is_engines)
    played.steps += played.conversation.opened()
    for is_engines, said in moves:
        if not is_engines:
            if not did(played, said, left, has_mode):
                break
            played.recorded.append(said)
            continue
        is_answer = "method" not in said and said.get("id") in played.ids
        data = line({**said, "id": played.ids[said["id"]]} if is_answer else said)
        for piece in pieces(data, None if cut is None else cut - at, by_byte):
            played.steps += played.conversation.feed(STDOUT, piece)
        at += len(data)
    played.steps += played.conversation.end_of(STDOUT)
    return played


def did(played: Played, said: Said, left: list[Reply], has_mode: bool) -> bool:
    """What the recorded client did, done by us; False when we never would."""
    match said.get("method"):
        case None if "error" in said:
            return True
        case None if said["result"]["outcome"]["outcome"] == "cancelled":
            return True  # part of our interrupt
        case None:
            steps = [step.payload for step in played.steps if isinstance(step, Emit)]
            asked = [payload for payload in steps if isinstance(payload, InteractionRequested)]
            played.steps += played.conversation.answer(asked[-1].question_id, left.pop(0))
            return True
        case "session/cancel":
            played.steps += played.conversation.interrupt()
            return True
        case method:
            if any(each.get("method") == method for each in played.recorded):
                return False
            if method == "session/prompt" and not has_mode:
                # most recorded clients set no mode: ours is answered when the recording goes on
                answer = {"id": played.number_of("session/set_mode"), "result": {}}
                played.steps += played.conversation.feed(STDOUT, line(answer))
            number = played.number_of(method)
            if number is None:
                return False
            played.ids[said["id"]] = number
            return True


def pieces(data: bytes, cut: int | None, by_byte: bool) -> list[bytes]:
    if by_byte:
        return [data[at : at + 1] for at in range(len(data))]
    return [data] if cut is None or not 0 < cut < len(data) else [data[:cut], data[cut:]]


def bytes_of(case: str) -> bytes:
    return b"".join(line(said) for is_engines, said in moves_of(case) if is_engines)


def golden(case: str) -> dict[str, Any]:
    played = play(case)
    outcome = played.outcome
    return {
        "events": played.events,
        "closed": any(isinstance(step, CloseInput) for step in played.steps),
        "outcome": outcome.outcome.value,
        "errorCode": outcome.error_code,
        "errorMessage": outcome.error_message,
        "result": outcome.result,
        "usage": None if outcome.usage is None else json.loads(outcome.usage.wire_json()),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_recording_becomes_the_same_events_and_outcome(case: str) -> None:
    path = RECORDINGS / case / "events.json"
    if os.environ.get("RUNYARD_UPDATE_RECORDINGS"):
        path.write_text(json.dumps(golden(case), indent=1, ensure_ascii=False) + "\n")
    assert golden(case) == json.loads(path.read_text())


@pytest.mark.parametrize("case", CASES)
def test_what_we_send_is_what_the_recorded_client_sent(case: str) -> None:
    played = play(case)
    ours = [core(each) for each in played.sent if each.get("method") != "session/set_mode"]
    theirs = [core(each) for each in played.recorded if each.get("method") != "session/set_mode"]
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("case", CASES)
def test_bytes_one_by_one_give_the_same_steps(case: str) -> None:
    assert play(case, by_byte=True).steps == play(case).steps


@pytest.mark.parametrize("case", SPLIT_CASES)
def test_chunking_never_changes_the_steps(case: str) -> None:
    whole = play(case).steps
    for cut in cuts(bytes_of(case)):
        assert play(case, cut=cut).steps == whole


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("acp-load")])
def test_the_history_of_a_loaded_session_is_not_told_again(case: str) -> None:
    assert "Hello from the fake model." in bytes_of(case).decode()
    events = play(case).events
    assert "Hello from the fake model." not in json.dumps(events)
    assert [kind for kind, _ in events].count("message.completed") == 1


def test_no_recording_is_left_without_its_engine() -> None:
    assert {case.partition("/")[0] for case in CASES} == set(PROVIDERS)


def core(said: Said) -> Any:
    """A message without its number and what we choose differently: who we are, a session's name, and an answer's text."""
    if said.get("method") == "initialize":
        return "initialize"
    if "error" in said:
        return said["error"]["code"]
    if "result" in said:
        return said["result"]["outcome"]
    return {"method": said["method"], "params": {name: value for name, value in said["params"].items() if name != "_meta"}}
