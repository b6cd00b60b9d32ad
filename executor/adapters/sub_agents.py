"""What a sub-agent of an engine says and does is told as its own, beside the tool call that started it. Knows no engine."""

from __future__ import annotations

from shared.contracts.events import Payload, Said


def marked(payload: Payload, tool_id: str | None) -> Payload:
    """The same, as of the sub-agent that ``tool_id`` started (None: the engine's own). What is nobody's word stays as it is."""
    is_marked = tool_id is not None and isinstance(payload, Said)
    return payload.model_copy(update={"parent_tool_id": tool_id}) if is_marked else payload
