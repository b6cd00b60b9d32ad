"""The OpenAI Responses dialect: ``POST …/responses``, answered as server-sent events."""

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
    EndBadly,
    MakePlan,
    Refuse,
    Reply,
    RunCommand,
    Say,
    SayNothing,
)

PATH = "/responses"
USAGE = {
    "input_tokens": 1200, "input_tokens_details": {"cached_tokens": 800}, "output_tokens": 42,
    "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 1242,
}  # fmt: skip
OUTPUTS = {"function_call_output", "custom_tool_call_output"}

_ids = count(1)

Frame = tuple[float, bytes]


def read(body: dict[str, Any]) -> Asked:
    items: list[dict[str, Any]] = body.get("input", [])
    last_user = max((at for at, item in enumerate(items) if item.get("role") == "user"), default=-1)
    outputs = [item["output"] for item in items[last_user + 1 :] if item.get("type") in OUTPUTS]
    return Asked(
        model=body.get("model", ""),
        user_text=_text(items[last_user].get("content", "")) if last_user >= 0 else "",
        tool_output=_text(outputs[-1]) if outputs else None,
        tools=tuple(tool.get("name") or tool.get("type", "") for tool in body.get("tools", [])),
        calls=len(outputs),
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content if isinstance(content, str) else json.dumps(content)


def frames(reply: Reply) -> Iterator[Frame]:
    """(seconds to wait, bytes) one after the other. A reply that is cut just stops."""
    response_id = f"resp_{next(_ids)}"
    yield 0, _event("response.created", response={"id": response_id})
    match reply:
        case Say(words=words, every_seconds=every, thought=thought):
            if thought is not None:
                yield from _reasoning(thought)
            yield from _message(words, every, is_whole=True)
        case EndBadly(words=words, how=how):
            yield from _message(words, 0, is_whole=how == "incomplete")
            yield 0, _bad_end(response_id, reply)
            return
        case BreakOff(words=words):
            yield from _message(words, 0, is_whole=False)
            return
        case RunCommand() | EditFile() | MakePlan() | AskUser() | CallTool():
            yield 0, _done(_tool_call(reply))
        case SayNothing() | Refuse():
            pass
    yield 0, _event("response.completed", response={"id": response_id, "usage": USAGE})


def _bad_end(response_id: str, reply: EndBadly) -> bytes:
    if reply.how == "failed":
        error = {"code": reply.reason, "message": "The model failed"}
        return _event("response.failed", response={"id": response_id, "status": "failed", "error": error})
    details = {"reason": reply.reason}
    return _event("response.incomplete", response={"id": response_id, "status": "incomplete", "incomplete_details": details})


def failure(refused: Refuse) -> dict[str, Any]:
    return {"error": {"message": refused.message, "type": refused.code, "code": refused.code, "param": None}}


def _message(words: tuple[str, ...], every: float, is_whole: bool) -> Iterator[Frame]:
    item = {"type": "message", "role": "assistant", "id": _id("msg"), "content": []}
    yield 0, _event("response.output_item.added", output_index=0, item=item)
    for word in words:
        yield every, _event("response.output_text.delta", item_id=item["id"], output_index=0, content_index=0, delta=word)
    if is_whole:
        yield 0, _done(item | {"content": [{"type": "output_text", "text": "".join(words), "annotations": []}]})


def _reasoning(thought: str) -> Iterator[Frame]:
    item = {"type": "reasoning", "id": _id("rs"), "summary": []}
    yield 0, _event("response.output_item.added", output_index=0, item=item)
    yield 0, _event("response.reasoning_summary_part.added", item_id=item["id"], output_index=0, summary_index=0)
    for word in thought.split(" "):
        yield 0, _event("response.reasoning_summary_text.delta", item_id=item["id"], summary_index=0, delta=f"{word} ")
    yield 0, _done(item | {"summary": [{"type": "summary_text", "text": thought}]})


def _tool_call(reply: RunCommand | EditFile | MakePlan | AskUser | CallTool) -> dict[str, Any]:
    match reply:
        case RunCommand(command=command):
            return _function("exec_command", {"cmd": command})
        case CallTool(name=name, arguments=arguments):
            return _function(name, arguments)
        case AskUser(question=question, options=options):
            choices = [{"label": each, "description": f"Use {each.lower()}"} for each in options]
            asked = {"id": "indent", "header": "Indent", "question": question, "options": choices}
            return _function("request_user_input", {"questions": [asked]})
        case MakePlan(steps=steps):
            plan = [{"step": step, "status": "pending" if at else "in_progress"} for at, step in enumerate(steps)]
            return _function("update_plan", {"plan": plan})
        case EditFile(path=path, text=text):
            patch = f"*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch"
            return {"type": "custom_tool_call", "call_id": _id("call"), "name": "apply_patch", "input": patch}


def _function(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """``namespace/name`` for a tool that was given within a namespace."""
    namespace, _, own = name.rpartition("/")
    call = {"type": "function_call", "call_id": _id("call"), "name": own, "arguments": json.dumps(arguments)}
    return call | ({"namespace": namespace} if namespace else {})


def _done(item: dict[str, Any]) -> bytes:
    return _event("response.output_item.done", output_index=0, item=item)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind} | fields).encode())


def _id(kind: str) -> str:
    return f"{kind}_{next(_ids)}"
