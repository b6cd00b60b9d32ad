"""What the recorded client of Claude Code said, as calls of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.adapters import ADAPTERS
from executor.adapters.base import Conversation, StartRequest, Step
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider
from tests.contract.replay import ALL_RECORDINGS, Move, Played

# What the recorded client knew and did not send.
MODES = {"plan-accept": EngineMode.PLAN}
NOT_SENT = "hi"


@dataclass(frozen=True)
class ClaudePlayer:
    """``claude -p`` with its control protocol; the recordings of its one-shot mode have nothing that was sent."""

    mode: EngineMode = EngineMode.ASK
    folder: Path = ALL_RECORDINGS / "claude"

    def conversation_for(self, moves: Sequence[Move]) -> Conversation:
        sent = [move.sent for move in moves if move.sent is not None]
        prompt = next((_text(each) for each in sent if each["type"] == "user"), NOT_SENT)
        schema = next((each["request"].get("jsonSchema") for each in sent if each["type"] == "control_request"), None)
        request = StartRequest(
            run_id="run_1", attempt=1, executable="/engines/claude", home="/home/agent", workspace="/workspace",
            messages=[Message(content=prompt)], output_schema=schema, engine_mode=self.mode,
            provider_options={"baseUrl": "http://127.0.0.1:1"}, credential_env={"ANTHROPIC_API_KEY": "sk-test"},
        )  # fmt: skip
        return ADAPTERS[Provider.CLAUDE_CODE].start(request)

    def said(
        self, conversation: Conversation, played: Played, sent: Mapping[str, Any], replies: list[Reply]
    ) -> list[Step] | None:
        is_over = conversation.ended(0).result is not None or any("interrupt" in str(each) for each in played.recorded)
        match sent:
            case {"type": "control_request", "request": {"subtype": "initialize"}}:
                return []
            case {"type": "control_request", "request": {"subtype": "interrupt"}}:
                return conversation.interrupt()
            case {"type": "control_response"} if replies:
                return conversation.answer(played.asked[-1], replies.pop(0))
            case {"type": "user"} if not any(each["type"] == "user" for each in played.recorded):
                return []
            case {"type": "user"} if not is_over:
                return conversation.message(_text(sent))
            case _:
                return None


def player_of(case: str) -> ClaudePlayer:
    return ClaudePlayer(MODES.get(case, EngineMode.ASK))


def _text(sent: Mapping[str, Any]) -> str:
    return sent["message"]["content"][0]["text"]
