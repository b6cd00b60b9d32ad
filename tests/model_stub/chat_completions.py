"""The OpenAI Chat Completions dialect: ``POST …/chat/completions``, answered as server-sent events.

Tools are called by the name the engine offers. A request that offers none is one of the engine's own (a title, a summary).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.model_stub.scenarios import (
    Asked,
    AskUser,
    BreakOff,
    CallTool,
    EditFile,
    MakePlan,
    Refuse,
    Reply,
    RunCommand,
    Say,
)

PATH = "/chat/completions"
USAGE = {
    "prompt_tokens": 1200, "prompt_tokens_details": {"cached_tokens": 800}, "completion_tokens": 42,
    "completion_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 1242,
}  # fmt: skip
SIDE_REQUEST = "a side request"

_ids = count(1)

Frame = tuple[float, bytes]


def read(body: dict[str, Any]) -> Asked:
    messages: list[dict[str, Any]] = body.get("messages", [])
    last_user = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    outputs = [message["content"] for message in messages[last_user + 1 :] if message.get("role") == "tool"]
    tools = tuple(tool["function"]["name"] for tool in body.get("tools", []))
    said = _text(messages[last_user].get("content", "")) if last_user >= 0 else ""
    return Asked(
        model=body.get("model", ""),
        user_text=said if tools else SIDE_REQUEST,
        tool_output=_text(outputs[-1]) if outputs else None,
        tools=tools,
        calls=len(outputs),
    )


def _text(content: Any) -> str:
    """Of several parts the last: an engine puts its own reminders, and what was never answered, before it."""
    if isinstance(content, list):
        return next((part["text"] for part in reversed(content) if part.get("text")), "")
    return content or ""


def frames(reply: Reply) -> Iterator[Frame]:
    """(seconds to wait, bytes) one after the other. A reply that is cut just stops."""
    finish = "stop"
    match reply:
        case Say(words=words, every_seconds=every, thought=thought):
            for word in (thought or "").split(" ") if thought else ():
                yield 0, _delta({"reasoning_content": f"{word} "})
            for word in words:
                yield every, _delta({"content": word})
        case BreakOff(words=words):
            for word in words:
                yield 0, _delta({"content": word})
            return
        case CallTool(name=name, arguments=arguments):
            finish = "tool_calls"
            function = {"name": name, "arguments": json.dumps(arguments)}
            yield 0, _delta({"tool_calls": [{"index": 0, "id": f"call_{next(_ids)}", "type": "function", "function": function}]})
        case _:
            pass
    yield 0, _chunk([{"index": 0, "delta": {}, "finish_reason": finish}])
    yield 0, _chunk([], usage=USAGE)
    yield 0, b"data: [DONE]\n\n"


def failure(refused: Refuse) -> dict[str, Any]:
    return {"error": {"message": refused.message, "type": refused.code, "code": refused.code, "param": None}}


def named(reply: Reply, tools: tuple[str, ...]) -> Reply:
    """The same reply, a tool's call by the name and arguments of whichever engine asks."""

    def offered(*names: str) -> str:
        return next((name for name in names if name in tools), names[0])

    match reply:
        case RunCommand(command=command):
            arguments = {"command": command, "description": "Run it", "is_background": False}
            return CallTool(offered("bash", "run_shell_command"), arguments)
        case EditFile(path=path, text=text):
            name = offered("write", "write_file")
            return CallTool(name, {"filePath" if name == "write" else "file_path": path, "content": text})
        case MakePlan(steps=steps):
            todos = [
                {"id": str(at), "content": step, "status": "pending" if at else "in_progress", "priority": "medium"}
                for at, step in enumerate(steps)
            ]
            return CallTool(offered("todowrite", "todo_write"), {"todos": todos})
        case AskUser(question=question, options=options):
            choices = [{"label": each, "description": f"Use {each.lower()}"} for each in options]
            asked = {"question": question, "header": "Indent", "options": choices, "multiSelect": False}
            return CallTool(offered("question", "ask_user_question"), {"questions": [asked]})
        case _:
            return reply


def _delta(delta: dict[str, Any]) -> bytes:
    return _chunk([{"index": 0, "delta": {"role": "assistant"} | delta, "finish_reason": None}])


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {"id": f"chatcmpl_{next(_ids)}", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
    return b"data: %b\n\n" % json.dumps(chunk | {"choices": choices} | more).encode()
