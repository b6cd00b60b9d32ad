"""Plays a recorded case of an engine to a conversation: its bytes in, our steps out, the recorded words too.

The body is one for all engines; a ``Player`` knows what the recorded client of one engine said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, Conversation, Emit, Outcome, Send, StartRequest, Step
from shared.contracts.events import InteractionRequested
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Provider

ALL_RECORDINGS = Path(__file__).parent.parent / "recordings"
RECORDINGS = ALL_RECORDINGS / "codex"
# What a conversation sends without being told to, each once.
OURS_BY_ITSELF = {
    "initialize", "initialized", "thread/start", "thread/resume", "turn/start", "thread/backgroundTerminals/clean",
}  # fmt: skip


@dataclass(frozen=True)
class Move:
    """One line of a transcript: bytes the engine printed, or a message that was sent to it."""

    received: bytes | None
    sent: Mapping[str, Any] | None


@dataclass
class Played:
    steps: list[Step] = field(default_factory=list[Step])
    recorded: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    outcome: Outcome | None = None

    @property
    def events(self) -> list[list[Any]]:
        emits = [step for step in self.steps if isinstance(step, Emit)]
        return [[emit.payload.KIND.value, json.loads(emit.payload.wire_json())] for emit in emits]

    @property
    def asked(self) -> list[str]:
        """The ids of the questions, oldest first."""
        payloads = [step.payload for step in self.steps if isinstance(step, Emit)]
        return [payload.question_id for payload in payloads if isinstance(payload, InteractionRequested)]

    @property
    def sent(self) -> list[Any]:
        return [json.loads(step.data) for step in self.steps if isinstance(step, Send)]

    def golden(self) -> dict[str, Any]:
        """What stands in ``events.json``."""
        assert self.outcome is not None
        outcome = self.outcome
        return {
            "events": self.events,
            "outcome": outcome.outcome.value,
            "errorCode": outcome.error_code,
            "errorMessage": outcome.error_message,
            "result": outcome.result,
            "usage": None if outcome.usage is None else json.loads(outcome.usage.wire_json()),
        }


class Player(Protocol):
    """What one engine's recorded client said, as calls of a conversation."""

    @property
    def folder(self) -> Path:
        """Where its cases lie."""
        ...

    def conversation_for(self, moves: Sequence[Move]) -> Conversation:
        """As the case was started."""
        ...

    def said(
        self, conversation: Conversation, played: Played, sent: Mapping[str, Any], replies: list[Reply]
    ) -> list[Step] | None:
        """The steps for what the client sent; None for what a conversation never does: there the play ends."""
        ...


@dataclass(frozen=True)
class CodexPlayer:
    """``codex app-server``."""

    folder: Path = RECORDINGS

    def conversation_for(self, moves: Sequence[Move]) -> Conversation:
        """Its prompt, its thread to resume, its schema."""
        sent = [move.sent for move in moves if move.sent is not None]
        turn = next(each["params"] for each in sent if each.get("method") == "turn/start")
        resumed = next((each["params"]["threadId"] for each in sent if each.get("method") == "thread/resume"), None)
        request = StartRequest(
            run_id="run_1", attempt=1, executable="/engines/codex", home="/home/agent", workspace="/workspace",
            messages=[Message(content=turn["input"][0]["text"])], output_schema=turn.get("outputSchema"),
            provider_options={"baseUrl": "http://127.0.0.1:1/v1"}, credential_env={"OPENAI_API_KEY": "sk-test"},
        )  # fmt: skip
        adapter = ADAPTERS[Provider.CODEX_APP_SERVER]
        return adapter.start(request) if resumed is None else adapter.resume(request, resumed)

    def said(
        self, conversation: Conversation, played: Played, sent: Mapping[str, Any], replies: list[Reply]
    ) -> list[Step] | None:
        match sent.get("method"):
            case None:
                return conversation.answer(played.asked[-1], replies.pop(0))
            case "turn/interrupt":
                return conversation.interrupt()
            case "turn/steer":
                return conversation.message(sent["params"]["input"][0]["text"])
            case method:
                is_ours = method in OURS_BY_ITSELF and method not in {each.get("method") for each in played.recorded}
                return [] if is_ours else None


CODEX = CodexPlayer()


def moves_of(folder: Path) -> Iterator[Move]:
    lines = iter((folder / "stdout.jsonl").read_bytes().split(b"\n"))
    for text in (folder / "transcript.jsonl").read_text().splitlines():
        move = json.loads(text)
        yield Move(next(lines) + b"\n", None) if move["dir"] == "recv" else Move(None, move["msg"])


def play(
    case: str, replies: Sequence[Reply] = (), cut: int | None = None, by_byte: bool = False, player: Player = CODEX
) -> Played:
    """The case up to the first thing a recording did that a conversation never does (a second turn, reading the thread)."""
    moves = list(moves_of(player.folder / case))
    conversation, played = player.conversation_for(moves), Played()
    left, at = list(replies), 0
    played.steps += conversation.opened()
    for move in moves:
        if move.received is not None:
            for piece in _pieces(move.received, None if cut is None else cut - at, by_byte):
                played.steps += conversation.feed(STDOUT, piece)
            at += len(move.received)
            continue
        assert move.sent is not None
        steps = player.said(conversation, played, move.sent, left)
        if steps is None:
            break
        played.steps += steps
        played.recorded.append(move.sent)
    played.steps += conversation.end_of(STDOUT)
    played.outcome = conversation.ended(0)
    return played


def _pieces(data: bytes, cut: int | None, by_byte: bool) -> list[bytes]:
    if by_byte:
        return [data[at : at + 1] for at in range(len(data))]
    return [data] if cut is None or not 0 < cut < len(data) else [data[:cut], data[cut:]]
