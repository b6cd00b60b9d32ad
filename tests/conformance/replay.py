"""A recording of ours played to its adapter again: the engine's bytes and the person's words in, our steps out. For any engine.

It needs no player an engine, because the recorded client was the conversation itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from executor.adapters import ADAPTERS
from executor.adapters.base import STDERR, STDOUT, Call, Conversation, Emit, Send, StartRequest, Step, Stream, call_stream
from shared.contracts.interactions import Reply
from shared.contracts.provider_runs import Message
from shared.contracts.providers import EngineMode
from tests.conformance.cases import Case
from tests.conformance.engines import Engine
from tests.conformance.ground import KEYS
from tests.conformance.seen import Data, Seen

STREAMS: dict[str, tuple[Stream, str]] = {"recv": (STDOUT, "stdout.jsonl"), "stderr": (STDERR, "stderr.txt")}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def replayed(engine: Engine, case: Case, folder: Path) -> tuple[Seen, list[Any], list[Any]]:
    """What it shows, what it sends, and what it sent when it was recorded; ids made equal in both."""
    moves = [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]
    printed = {dir: iter((folder / name).read_bytes().split(b"\n")) for dir, (_, name) in STREAMS.items()}
    conversation = _conversation(engine, case, folder)
    steps = conversation.opened()
    for move in moves:
        if move["dir"] in STREAMS:
            steps += conversation.feed(STREAMS[move["dir"]][0], next(printed[move["dir"]]) + b"\n")
        elif move["dir"] == "person":
            steps += _said(conversation, move["msg"])
        elif move["dir"] == "answer":
            steps += _answered(conversation, *move["msg"])
    for stream, _ in STREAMS.values():
        steps += conversation.end_of(stream)
    sent = [_ours(step) for step in steps if isinstance(step, Send | Call)]
    recorded = [move["msg"] for move in moves if move["dir"] in ("send", "call")]
    return _seen(conversation, steps, folder), list(_alike(sent)), list(_alike(recorded))


def _conversation(engine: Engine, case: Case, folder: Path) -> Conversation:
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/engines/it", home="/home/agent", workspace="/workspace",
        messages=[Message(content=case.marker)], model=engine.model, output_schema=case.asks.get("outputSchema"),
        engine_mode=EngineMode(case.asks.get("engineMode", "ask")),
        provider_options={"baseUrl": "http://127.0.0.1:8000/v1"},
        credential_env={engine.key: KEYS[engine.key]} if engine.key else {},
    )  # fmt: skip
    adapter = ADAPTERS[engine.provider]
    if case.after is None:
        return adapter.start(request)
    return adapter.resume(request, (folder / "session.txt").read_text().strip())


def _ours(step: Send | Call) -> Any:
    if isinstance(step, Send):
        return json.loads(step.data)
    return [step.call_id, step.method, step.path, (step.body or b"").decode()]


def _answered(conversation: Conversation, call_id: str, answer: str) -> list[Step]:
    stream = call_stream(call_id)
    return [*conversation.feed(stream, answer.encode()), *conversation.end_of(stream)]


def _said(conversation: Conversation, said: Data) -> list[Step]:
    match said:
        case {"answer": [question, reply]}:
            return conversation.answer(question, Reply.model_validate(reply))
        case {"message": [text]}:
            return conversation.message(text)
        case _:
            return conversation.interrupt()


def _seen(conversation: Conversation, steps: list[Step], folder: Path) -> Seen:
    told = [(step.payload.KIND.value, json.loads(step.payload.wire_json())) for step in steps if isinstance(step, Emit)]
    exit_code = int((folder / "exit.txt").read_text().partition("=")[2])
    ended = conversation.ended(exit_code)
    code = None if ended.error_code is None else ended.error_code.value
    usage = None if ended.usage is None else json.loads(ended.usage.wire_json())
    return Seen(told, ended.outcome.value, code, ended.error_message, ended.result, usage)


def _alike(sent: list[Any]) -> Iterator[Any]:
    for each in sent:
        yield json.loads(_UUID.sub("an id", json.dumps(each)))
