"""The Gemini dialect: ``POST …/models/<model>:streamGenerateContent``, answered as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    SayNothing,
)

PATH = ":streamGenerateContent"
USAGE = {
    "promptTokenCount": 1200, "cachedContentTokenCount": 800, "candidatesTokenCount": 42, "thoughtsTokenCount": 7,
    "totalTokenCount": 1249,
}  # fmt: skip
STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip
PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaMetric": "requests"}],
}

Frame = tuple[float, bytes]


def read(body: dict[str, Any]) -> Asked:
    contents: list[dict[str, Any]] = body.get("contents", [])
    spoken = [(at, _texts(each)) for at, each in enumerate(contents) if each.get("role") == "user" and _texts(each)]
    last_user, texts = spoken[-1] if spoken else (-1, [""])
    parts = [part for each in contents[last_user + 1 :] for part in each.get("parts", [])]
    outputs = [part["functionResponse"].get("response", {}) for part in parts if "functionResponse" in part]
    declared = [each for tool in body.get("tools", []) for each in tool.get("functionDeclarations", [])]
    return Asked(
        model=body.get("model", ""),
        user_text=next((text for text in reversed(texts) if "[[" in text), texts[-1]),  # the engine nudges in a part of its own
        tool_output=str(outputs[-1].get("output", outputs[-1].get("error", ""))) if outputs else None,
        tools=tuple(each["name"] for each in declared),
        calls=len(outputs),
    )


def _texts(content: dict[str, Any]) -> list[str]:
    return [part["text"] for part in content.get("parts", []) if part.get("text")]


def frames(reply: Reply) -> Iterator[Frame]:
    """(seconds to wait, bytes) one after the other. A reply that is cut just stops."""
    match reply:
        case Say(words=words, every_seconds=every, thought=thought):
            if thought is not None:
                yield 0, _part({"text": f"**Thinking**\n{thought}", "thought": True})
            for word in words:
                yield every, _part({"text": word})
        case BreakOff(words=words):
            for word in words:
                yield 0, _part({"text": word})
            return
        case RunCommand() | EditFile() | MakePlan() | AskUser() | CallTool():
            name, arguments = _call(reply)
            yield 0, _part({"functionCall": {"name": name, "args": arguments}})
        case SayNothing() | Refuse():
            pass
    yield 0, _event([{"content": {"role": "model", "parts": []}, "finishReason": "STOP", "index": 0}], usageMetadata=USAGE)


def failure(refused: Refuse) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": refused.status,
        "message": refused.message,
        "status": STATUSES.get(refused.status, "INTERNAL" if refused.status >= 500 else "INVALID_ARGUMENT"),
    }
    if refused.code == "insufficient_quota":
        error["details"] = [PER_DAY]
    elif refused.retry_after is not None:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{refused.retry_after}s"}]
    return {"error": error}


def _call(reply: RunCommand | EditFile | MakePlan | AskUser | CallTool) -> tuple[str, dict[str, Any]]:
    match reply:
        case RunCommand(command=command):
            return "run_shell_command", {"command": command, "description": "Run it"}
        case EditFile(path=path, text=text):
            return "write_file", {"file_path": path, "content": text}
        case MakePlan(steps=steps):
            todos = [{"description": step, "status": "pending" if at else "in_progress"} for at, step in enumerate(steps)]
            return "write_todos", {"todos": todos}
        case AskUser(question=question, options=options):
            choices = [{"label": each, "description": f"Use {each.lower()}"} for each in options]
            return "ask_user", {"questions": [{"question": question, "header": "Indent", "type": "choice", "options": choices}]}
        case CallTool(name=name, arguments=arguments):
            return name, arguments


def _part(part: dict[str, Any]) -> bytes:
    return _event([{"content": {"role": "model", "parts": [part]}, "index": 0}])


def _event(candidates: list[dict[str, Any]], **more: Any) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps({"candidates": candidates, "modelVersion": "stub"} | more).encode()
