"""One run as its caller lives it: started, followed across cuts to its end or to the end of patience, judged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from runyard.api import Runyard, RunyardApiError, RunyardUnreachableError
from scripts.stress.sse_client import Connection, Ended
from scripts.stress.verdicts import OF_STATUS, SUGGESTIONS, Outcome, classify
from shared.sse import Frame

RECONNECTS = 5
RECONNECT_SECONDS = 0.2
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the runs are given to. ``seconds``: how long one caller waits for one run."""

    url: str
    key: str | None
    seconds: float
    runyard: Runyard


@dataclass(slots=True)
class Lived:
    """What was seen of one run so far. Times are seconds of the monotonic clock."""

    number: int
    folder: Path
    started_at: float
    run_id: str | None = None
    accepted_at: float | None = None
    first_event_at: float | None = None
    first_text_at: float | None = None
    ended_at: float | None = None
    cursor: int = 0
    curl_exits: list[int | None] = field(default_factory=list[int | None])
    ended: Ended | None = None
    terminal: Json | None = None
    is_incoherent: bool = False
    snapshot: Json = field(default_factory=dict[str, Any])
    refusal: Json | None = None

    def heard(self, frame: Frame) -> None:
        """Every event exactly once and in order, also across connections; a gap that says so is none."""
        now = time.monotonic()
        if not frame.id:
            return
        cursor, kind = int(frame.id), frame.event.decode()
        self.is_incoherent = self.is_incoherent or (cursor != self.cursor + 1 and kind != "stream.gap")
        self.cursor = cursor
        self.first_event_at = self.first_event_at or now
        if kind in ("message.delta", "message.completed"):
            self.first_text_at = self.first_text_at or now
        if kind == "run.status" and (data := json.loads(frame.data)["data"])["status"] in OF_STATUS:
            self.terminal, self.ended_at = data, now


async def live(target: Target, number: int, request: Mapping[str, Any], folder: Path) -> Json:
    """The result of one run, as it stands in the report. ``folder`` holds its raw stream afterwards. Raises ``OSError``."""
    lived = Lived(number, folder, time.monotonic())
    outcome = await _start(target, lived, request)
    if outcome is None:
        await _follow(target, lived)
        outcome = await _judge(target, lived)
    return _result(lived, outcome, request)


async def _start(target: Target, lived: Lived, request: Mapping[str, Any]) -> Outcome | None:
    fields = dict(request)
    try:
        accepted = await target.runyard.start(fields.pop("prompt"), idempotency_key=uuid4().hex, **fields)
    except RunyardApiError as error:
        lived.refusal = {"errorCode": error.code, "errorMessage": str(error), "retryable": error.retryable}
        return Outcome.REFUSED
    except RunyardUnreachableError as error:
        lived.refusal = {"errorMessage": str(error)}
        return Outcome.TRANSPORT_ERROR
    lived.run_id, lived.accepted_at = str(accepted["runId"]), time.monotonic()
    return None


async def _follow(target: Target, lived: Lived) -> None:
    """To the terminal event, the end of patience, or one cut too many."""
    until = lived.started_at + target.seconds
    while lived.terminal is None and len(lived.curl_exits) <= RECONNECTS and (left := until - time.monotonic()) > 0:
        if lived.curl_exits:
            await asyncio.sleep(min(RECONNECT_SECONDS, left))
        url = f"{target.url}/api/runs/{lived.run_id}/stream"
        connection = Connection(url, target.key, lived.cursor, left, lived.folder)
        async with aclosing(connection.frames()) as frames:
            async for frame in frames:
                lived.heard(frame)
        lived.curl_exits.append(connection.exit)
        lived.ended = connection.ended
        if connection.ended is Ended.TIMED_OUT:
            return


async def _judge(target: Target, lived: Lived) -> Outcome:
    """The terminal event decides. A run without one is asked itself, and stopped: nobody follows it any more."""
    lived.snapshot = await _snapshot(target, lived)
    if lived.is_incoherent:
        return Outcome.STREAM_INCOHERENT
    if lived.terminal is not None:
        return OF_STATUS[str(lived.terminal["status"])]
    if lived.snapshot.get("status") not in OF_STATUS:
        try:
            await target.runyard.stop(str(lived.run_id))
        except (RunyardApiError, RunyardUnreachableError):
            pass
    if lived.ended not in (None, Ended.TIMED_OUT):
        return Outcome.STREAM_CUT
    return Outcome.BLOCKED if lived.snapshot.get("status") == "waiting_user" else Outcome.CLIENT_TIMEOUT


async def _snapshot(target: Target, lived: Lived) -> Json:
    try:
        return await target.runyard.get(str(lived.run_id))
    except (RunyardApiError, RunyardUnreachableError):
        return {}


def _result(lived: Lived, outcome: Outcome, request: Mapping[str, Any]) -> Json:
    said: Mapping[str, Any] = lived.refusal or lived.terminal or {}
    failure = classify(outcome, said.get("errorCode"))
    return {
        "run": lived.number, "runId": lived.run_id, "provider": request.get("provider"), "model": request.get("model"),
        "outcome": outcome.value, "failureClass": failure.value, "suggestion": SUGGESTIONS[failure],
        "errorCode": said.get("errorCode"), "errorMessage": said.get("errorMessage") or said.get("detail"),
        "retryable": said.get("retryable"),
        "runStatus": lived.snapshot.get("status"), "runErrorCode": lived.snapshot.get("errorCode"),
        "stderrTail": lived.snapshot.get("stderrTail"),
        "curlExit": lived.curl_exits[-1] if lived.curl_exits else None, "curlExits": lived.curl_exits,
        "streamEnded": lived.ended.value if lived.ended else None, "reconnects": max(len(lived.curl_exits) - 1, 0),
        "events": lived.cursor,
        "latencyMs": {
            "accepted": _since(lived, lived.accepted_at), "firstEvent": _since(lived, lived.first_event_at),
            "firstText": _since(lived, lived.first_text_at), "total": _since(lived, lived.ended_at),
        },
    }  # fmt: skip


def _since(lived: Lived, at: float | None) -> int | None:
    return None if at is None else round((at - lived.started_at) * 1000)
