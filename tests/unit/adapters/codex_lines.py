"""Lines of Codex as tests make them, and what a conversation makes of them."""

from __future__ import annotations

import json
from typing import Any

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, Conversation, Emit, Send, StartRequest, Step
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode, Provider

THREAD = {"threadId": "th"}
TURN = {"id": "tu", "status": "inProgress"}


def conversation(engine_mode: EngineMode = EngineMode.ASK) -> Conversation:
    request = StartRequest(
        run_id="run_1", attempt=2, executable="/codex", home="/h", workspace="/w", messages=[Message(content="hi")],
        provider_options={"baseUrl": "http://127.0.0.1:1"}, credential_env={"OPENAI_API_KEY": "k"},
        engine_mode=engine_mode,
    )  # fmt: skip
    return ADAPTERS[Provider.CODEX_APP_SERVER].start(request)


def feed(codex: Conversation, *lines: Any) -> list[Step]:
    return [step for line in lines for step in codex.feed(STDOUT, json.dumps(line).encode() + b"\n")]


def working(engine_mode: EngineMode = EngineMode.ASK) -> Conversation:
    """A conversation whose turn runs."""
    codex = conversation(engine_mode)
    codex.opened()
    feed(codex, {"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}, {"id": 3, "result": {"turn": TURN}})
    return codex


def asks(id: int | str, command: str = "ls") -> dict[str, Any]:
    """May it run this?"""
    return {"method": "item/commandExecution/requestApproval", "id": id, "params": THREAD | {"itemId": "i", "command": command}}


def sent(steps: list[Step]) -> list[Any]:
    return [json.loads(step.data) for step in steps if isinstance(step, Send)]


def emitted(steps: list[Step]) -> list[tuple[str, Any]]:
    emits = [step.payload for step in steps if isinstance(step, Emit)]
    return [(payload.KIND.value, json.loads(payload.wire_json())) for payload in emits]


def notice(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": THREAD | params}


def turn_completed(status: str = "completed") -> dict[str, Any]:
    return notice("turn/completed", turn={"id": "tu", "status": status})


def agent_message(text: str) -> dict[str, Any]:
    return notice("item/completed", item={"type": "agentMessage", "id": "m1", "text": text})
