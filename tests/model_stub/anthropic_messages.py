"""The Anthropic Messages dialect: ``POST …/messages``, answered as server-sent events, or whole where no stream was asked for."""

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
    words_of,
)

PATH = "/messages"
USAGE_IN = {"input_tokens": 1200, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 800}
OUTPUT_TOKENS = 42
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip
ENGINES_OWN = "<system-reminder>"

_ids = count(1)

Block = dict[str, Any]
Frame = tuple[float, bytes]


def read(body: dict[str, Any]) -> Asked:
    messages: list[dict[str, Any]] = body.get("messages", [])
    said = [(message["role"], _blocks(message.get("content", ""))) for message in messages]
    last_user = max((at for at, (role, blocks) in enumerate(said) if role == "user" and _text(blocks)), default=-1)
    results = [block for _, blocks in said[last_user + 1 :] for block in blocks if block.get("type") == "tool_result"]
    return Asked(
        model=body.get("model", ""),
        user_text=_text(said[last_user][1]) if last_user >= 0 else "",
        tool_output=_output(results[-1]) if results else None,
        tools=tuple(tool.get("name", "") for tool in body.get("tools", [])),
        calls=len(results),
    )


def _blocks(content: Any) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(blocks: list[Block]) -> str:
    """What a person said in a message: not what the engine wrapped around it."""
    texts = [block.get("text", "") for block in blocks if block.get("type") == "text"]
    return "\n".join(text for text in texts if not text.lstrip().startswith(ENGINES_OWN))


def _output(result: Block) -> str:
    return "\n".join(block.get("text", "") for block in _blocks(result.get("content", "")))


def is_streamed(body: dict[str, Any]) -> bool:
    return bool(body.get("stream"))


def frames(reply: Reply) -> Iterator[Frame]:
    """(seconds to wait, bytes) one after the other. A reply that is cut just stops."""
    message = _message([], None) | {"usage": USAGE_IN | {"output_tokens": 1}}
    yield 0, _event("message_start", message=message)
    for index, (block, pieces, every) in enumerate(_content(reply)):
        yield 0, _event("content_block_start", index=index, content_block=_empty(block))
        for piece in pieces:
            yield every, _event("content_block_delta", index=index, delta=piece)
        if isinstance(reply, BreakOff) and not isinstance(reply, EndBadly):
            return
        yield 0, _event("content_block_stop", index=index)
    if isinstance(reply, EndBadly) and reply.how == "failed":
        yield 0, _event("error", error={"type": "overloaded_error", "message": "The model failed"})
        return
    yield 0, _event("message_delta", delta={"stop_reason": _stop(reply)}, usage={"output_tokens": OUTPUT_TOKENS})
    yield 0, _event("message_stop")


def whole(reply: Reply) -> dict[str, Any]:
    """The same answer in one piece."""
    usage = USAGE_IN | {"output_tokens": OUTPUT_TOKENS}
    return _message([block for block, _, _ in _content(reply)], _stop(reply)) | {"usage": usage}


def failure(refused: Refuse) -> dict[str, Any]:
    kind = ERROR_TYPES.get(refused.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": _id("req")}


def _content(reply: Reply) -> Iterator[tuple[Block, list[Block], float]]:
    """Each block whole, the deltas it is streamed in, and the seconds between those."""
    match reply:
        case Say(words=words, every_seconds=every, thought=thought):
            if thought is not None:
                pieces = [{"type": "thinking_delta", "thinking": word} for word in words_of(thought)]
                signed = {"type": "signature_delta", "signature": "c2lnbmVk"}
                yield {"type": "thinking", "thinking": thought, "signature": "c2lnbmVk"}, [*pieces, signed], 0
            yield _text_block(words, every)
        case BreakOff(words=words):
            yield _text_block(words, 0)
        case RunCommand() | EditFile() | AskUser() | CallTool() | MakePlan():
            for name, arguments in _calls(reply):
                block = {"type": "tool_use", "id": _id("toolu"), "name": name, "input": arguments}
                yield block, [{"type": "input_json_delta", "partial_json": json.dumps(arguments)}], 0
        case SayNothing() | Refuse():
            pass


def _text_block(words: tuple[str, ...], every: float) -> tuple[Block, list[Block], float]:
    return {"type": "text", "text": "".join(words)}, [{"type": "text_delta", "text": word} for word in words], every


def _calls(reply: RunCommand | EditFile | AskUser | CallTool | MakePlan) -> Iterator[tuple[str, Block]]:
    match reply:
        case RunCommand(command=command):
            yield "Bash", {"command": command, "description": "Run a command"}
        case EditFile(path=path, text=text):
            yield "Write", {"file_path": path, "content": text}
        case AskUser(question=question, options=options):
            choices = [{"label": each, "description": f"Use {each.lower()}"} for each in options]
            asked = {"question": question, "header": "Indent", "options": choices, "multiSelect": False}
            yield "AskUserQuestion", {"questions": [asked]}
        case CallTool(name=name, arguments=arguments):
            yield name, arguments
        case MakePlan(steps=steps):
            yield from (("TaskCreate", {"subject": step, "description": step}) for step in steps)
            yield "TaskUpdate", {"taskId": "1", "status": "in_progress"}


def _message(content: list[Block], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": _id("msg"), "type": "message", "role": "assistant", "model": "stub", "content": content,
        "stop_reason": stop_reason, "stop_sequence": None,
    }  # fmt: skip


def _stop(reply: Reply) -> str:
    if isinstance(reply, EndBadly):
        return "max_tokens"
    return "tool_use" if isinstance(reply, RunCommand | EditFile | AskUser | CallTool | MakePlan) else "end_turn"


def _empty(block: Block) -> Block:
    """A block as it begins: its content comes in deltas."""
    empty = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {name: empty.get(name, value) for name, value in block.items()}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind} | fields).encode())


def _id(kind: str) -> str:
    return f"{kind}_{next(_ids)}"
