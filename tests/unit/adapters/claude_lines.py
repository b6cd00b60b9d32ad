"""Lines of Claude Code as tests make them, and what a conversation makes of them."""

from __future__ import annotations

import json
from typing import Any

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, Conversation, Emit, Send, StartRequest, Step
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider

INITIALIZED = {"type": "control_response", "response": {"subtype": "success", "request_id": "req_1", "response": {}}}
INIT = {"type": "system", "subtype": "init", "session_id": "s1"}


def conversation(mode: EngineMode = EngineMode.ASK, **more: Any) -> Conversation:
    request = StartRequest(
        run_id="run_1", attempt=2, executable="/claude", home="/h", workspace="/w", messages=[Message(content="hi")],
        engine_mode=mode, credential_env={"ANTHROPIC_API_KEY": "k"}, **more,
    )  # fmt: skip
    return ADAPTERS[Provider.CLAUDE_CODE].start(request)


def feed(claude: Conversation, *lines: Any) -> list[Step]:
    return [step for line in lines for step in claude.feed(STDOUT, json.dumps(line).encode() + b"\n")]


def working(mode: EngineMode = EngineMode.ASK, **more: Any) -> Conversation:
    """A conversation whose turn runs."""
    claude = conversation(mode, **more)
    claude.opened()
    feed(claude, INITIALIZED, INIT)
    return claude


def sent(steps: list[Step]) -> list[Any]:
    return [json.loads(step.data) for step in steps if isinstance(step, Send)]


def emitted(steps: list[Step]) -> list[tuple[str, Any]]:
    emits = [step.payload for step in steps if isinstance(step, Emit)]
    return [(payload.KIND.value, json.loads(payload.wire_json())) for payload in emits]


def answered(steps: list[Step]) -> list[Any]:
    return [each["response"].get("response") or each["response"] for each in sent(steps) if each["type"] == "control_response"]


def said(text: str, message: str = "m1", parent: str | None = None) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "assistant", "message": {"id": message, "content": content}, "parent_tool_use_id": parent}


def called(id: str, name: str, given: Any) -> dict[str, Any]:
    return {
        "type": "assistant",
        "message": {"id": "m1", "content": [{"type": "tool_use", "id": id, "name": name, "input": given}]},
    }


def gave(id: str, content: Any, is_error: bool = False, kept: Any = None) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": id, "content": content, "is_error": is_error}
    return {"type": "user", "message": {"role": "user", "content": [block]}, "tool_use_result": kept}


def asks(tool: str, given: dict[str, Any], id: str = "r1", **more: Any) -> dict[str, Any]:
    request = {"subtype": "can_use_tool", "tool_name": tool, "input": given, "tool_use_id": "t1"} | more
    return {"type": "control_request", "request_id": id, "request": request}


def result(text: str | None = "done", **more: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": text} | more


def replayed(message: Any) -> dict[str, Any]:
    return message | {"isReplay": True}


def retry(**more: Any) -> dict[str, Any]:
    return {"type": "system", "subtype": "api_retry", "attempt": 1, "retry_delay_ms": 500.7, "error_status": 500} | more


def streamed(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "stream_event", "event": event, "parent_tool_use_id": None} for event in events]


def begins(id: str, **usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": id, "content": [], "usage": usage}}


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "message_stop"}
