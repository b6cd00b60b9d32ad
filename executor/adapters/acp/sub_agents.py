"""What sub-agents of an ACP session say, as messages and reasoning of their own: each beside the tool call that started it.

Their words are never the answer; that stands in the result of their tool. Nothing here may know an engine by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.contracts.events import MessageCompleted, MessageDelta, Payload, ReasoningCompleted, ReasoningDelta


@dataclass(slots=True)
class _Text:
    message_id: str
    parent: str
    is_thought: bool
    parts: list[str] = field(default_factory=list[str])


class HelperTexts:
    """By tool call, the one text its sub-agent is saying or thinking now."""

    def __init__(self) -> None:
        self._open: dict[str, _Text] = {}
        self._count = 0

    def said(self, parent: str, text: str, is_thought: bool) -> list[Payload]:
        told: list[Payload] = []
        now = self._open.get(parent)
        if now is None or now.is_thought != is_thought:
            told = self.closed(parent)
            self._count += 1
            now = self._open[parent] = _Text(f"h{self._count}", parent, is_thought)
        now.parts.append(text)
        kind = ReasoningDelta if is_thought else MessageDelta
        return [*told, kind(message_id=now.message_id, text=text, parent_tool_id=parent)]

    def closed(self, parent: str) -> list[Payload]:
        """Its model call, or its work, is over."""
        whole = self._open.pop(parent, None)
        if whole is None:
            return []
        kind = ReasoningCompleted if whole.is_thought else MessageCompleted
        return [kind(message_id=whole.message_id, text="".join(whole.parts), parent_tool_id=parent)]

    def all_closed(self) -> list[Payload]:
        return [payload for parent in list(self._open) for payload in self.closed(parent)]
