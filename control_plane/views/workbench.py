"""The flat frames of ``?view=workbench``, as callers of the provider-runtime record read them: a projection of the one log.

| event | frame |
|---|---|
| the first ``run.status running`` | ``run.status started`` |
| the terminal ``run.status`` | ``finished`` (``succeeded``, ``canceled``), ``blocked`` (a missing capability), or ``failed`` |
| ``message.delta``; ``message.completed`` that had no deltas | ``message.delta`` |
| ``plan.updated`` | one ``todo.update`` for every item that changed |
| ``diagnostic`` (not info), ``retry.scheduled``, ``attempt.lost``, ``stream.gap`` | ``run.warning`` |
| the end of the log | ``run.closed`` |

A question gives no frame: these callers ask for open ones at ``/api/human-loop/pending``, and they take ``blocked`` for the end.
What a sub-agent says gives none either: they take every ``message.delta`` for the answer.

What a frame says may depend on what came before it (had the message deltas, which items changed), so the projection always
reads the log from its beginning; ``after`` only decides what is shown. A resumed stream is therefore a suffix of the whole one.

Ids are the run's cursors. Of several frames of one event only the last has the id: a cut between them brings all of them
again, never fewer, and all but the last are ``todo.update``, which say a state and may be said twice. ``run.closed`` is no
event and has no id: every reading that reaches the end gets it, also one that resumes from the last cursor.

It must never be in the way of the default view, whose frames nobody parses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from pydantic import Field

from shared.contracts.events import Kind
from shared.contracts.runs import TERMINAL, RunStatus
from shared.contracts.wire import Wire
from shared.errors import ErrorCode

TodoStatus = Literal["todo", "doing", "done", "canceled"]
# These callers compare with exactly these words; a longer text counts as a failure to them.
_FINISHED: Mapping[str, str] = {RunStatus.SUCCESS: "succeeded", RunStatus.CANCELED: "canceled"}
_TODO: Mapping[str, TodoStatus] = {"pending": "todo", "in_progress": "doing", "completed": "done"}


class FlatFrame(Wire):
    """What every flat frame says beside its ``type``, which is the SSE event too."""

    run_id: str
    provider: str | None
    ts: str = Field(description="When it happened: the event's `at`.")


class FlatStatus(FlatFrame):
    type: Literal["run.status"] = "run.status"
    status: Literal["started", "finished", "failed", "blocked"]
    detail: str | None = Field(default=None, description="`succeeded`, `canceled`, or `<error code>: <message>`.")


class FlatDelta(FlatFrame):
    type: Literal["message.delta"] = "message.delta"
    text: str


class Todo(Wire):
    todo_id: str = Field(description="By the item's place in the plan.")
    content: str
    status: TodoStatus
    order: int


class FlatTodo(FlatFrame):
    type: Literal["todo.update"] = "todo.update"
    todo: Todo


class FlatWarning(FlatFrame):
    type: Literal["run.warning"] = "run.warning"
    warning: str


class FlatClosed(Wire):
    type: Literal["run.closed"] = "run.closed"
    run_id: str


Flat = FlatStatus | FlatDelta | FlatTodo | FlatWarning
FLAT_FRAMES = (FlatStatus, FlatDelta, FlatTodo, FlatWarning, FlatClosed)


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """As much of an event as the projection reads; ``data`` is decoded only where it has a frame."""

    cursor: int
    attempt: int
    at: str
    kind: str
    data: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(Envelope)
_Data = dict[str, Any]


class Workbench:
    """One reading of one run: fed its whole log in order, it gives the frames of what comes after a cursor."""

    def __init__(self, run_id: str, provider: str | None, after: int = 0) -> None:
        self._run_id = run_id
        self._provider = provider
        self._after = after
        self._started = False
        self._streamed: set[tuple[int, str]] = set()  # messages that had deltas and are not whole yet
        self._todos: list[Todo] = []

    def frames(self, event_json: bytes) -> bytes:
        """The flat frames of the next event of the log; b"" where it has none, or was seen before."""
        event = _ENVELOPE.decode(event_json)
        project = _PROJECTIONS.get(event.kind)
        if project is None:
            return b""
        data: _Data = msgspec.json.decode(event.data)
        flat = project(self, event, data)
        shown = self._encoded(event.cursor, flat) if event.cursor > self._after else b""
        if event.kind == Kind.RUN_STATUS and data["status"] in TERMINAL:
            shown += _encode(None, FlatClosed(run_id=self._run_id))
        return shown

    def _encoded(self, cursor: int, flat: list[Flat]) -> bytes:
        return b"".join(_encode(cursor if each is flat[-1] else None, each) for each in flat)

    # ---- what an event becomes ----

    def _status(self, event: Envelope, data: _Data) -> list[Flat]:
        status: str = data["status"]
        if status in TERMINAL:
            return [self._end(event, status, data)]
        if status != RunStatus.RUNNING or self._started:
            return []
        self._started = True
        return [FlatStatus(**self._head(event), status="started")]

    def _end(self, event: Envelope, status: str, data: _Data) -> FlatStatus:
        if status in _FINISHED:
            return FlatStatus(**self._head(event), status="finished", detail=_FINISHED[status])
        code, message = data.get("errorCode"), data.get("errorMessage")
        detail = ": ".join(filter(None, (code, message))) or data.get("detail")
        blocked = code == ErrorCode.CAPABILITY_UNAVAILABLE
        return FlatStatus(**self._head(event), status="blocked" if blocked else "failed", detail=detail)

    def _delta(self, event: Envelope, data: _Data) -> list[Flat]:
        if data.get("parentToolId"):
            return []
        self._streamed.add((event.attempt, data.get("messageId", "")))
        return [FlatDelta(**self._head(event), text=data["text"])]

    def _message(self, event: Envelope, data: _Data) -> list[Flat]:
        message = (event.attempt, data.get("messageId", ""))
        if message in self._streamed:
            self._streamed.discard(message)
            return []
        is_answer = data["text"] and not data.get("parentToolId")
        return [FlatDelta(**self._head(event), text=data["text"])] if is_answer else []

    def _plan(self, event: Envelope, data: _Data) -> list[Flat]:
        """The items that changed; one the plan no longer has is canceled unless it was done."""
        before = self._todos
        items: list[_Data] = data["items"]
        self._todos = [_todo(place, item["text"], _TODO.get(item.get("status", ""), "todo")) for place, item in enumerate(items)]
        self._todos += [
            each if each.status == "done" else _todo(each.order, each.content, "canceled") for each in before[len(items) :]
        ]
        changed = [each for place, each in enumerate(self._todos) if place >= len(before) or each != before[place]]
        return [FlatTodo(**self._head(event), todo=each) for each in changed]

    def _diagnostic(self, event: Envelope, data: _Data) -> list[Flat]:
        return [] if data.get("severity") == "info" else self._warning(event, f"{data['code']}: {data['message']}")

    def _retry(self, event: Envelope, data: _Data) -> list[Flat]:
        return self._warning(event, f"retry_scheduled: {data['reason']}")

    def _lost(self, event: Envelope, data: _Data) -> list[Flat]:
        return self._warning(event, f"{ErrorCode.EXECUTOR_LOST}: {data['reason']}")

    def _gap(self, event: Envelope, data: _Data) -> list[Flat]:
        unseen = max(data["from"], self._after + 1)  # the log is read from its beginning, whatever its reader has seen
        return self._warning(event, f"stream_gap: events {unseen} to {data['to']} are no longer kept")

    def _warning(self, event: Envelope, text: str) -> list[Flat]:
        return [FlatWarning(**self._head(event), warning=text)]

    def _head(self, event: Envelope) -> _Data:
        return {"run_id": self._run_id, "provider": self._provider, "ts": event.at}


def _todo(place: int, content: str, status: TodoStatus) -> Todo:
    return Todo(todo_id=f"todo-{place + 1}", content=content, status=status, order=place)


def _encode(cursor: int | None, flat: Flat | FlatClosed) -> bytes:
    """An id where there is one: a frame without leaves the reader's last id as it was."""
    head = b"" if cursor is None else b"id: %d\n" % cursor
    return head + b"event: %b\ndata: %b\n\n" % (flat.type.encode(), flat.wire_json().encode())


_PROJECTIONS: Mapping[str, Callable[[Workbench, Envelope, _Data], list[Flat]]] = {
    Kind.RUN_STATUS.value: Workbench._status,  # pyright: ignore[reportPrivateUsage]
    Kind.MESSAGE_DELTA.value: Workbench._delta,  # pyright: ignore[reportPrivateUsage]
    Kind.MESSAGE_COMPLETED.value: Workbench._message,  # pyright: ignore[reportPrivateUsage]
    Kind.PLAN_UPDATED.value: Workbench._plan,  # pyright: ignore[reportPrivateUsage]
    Kind.DIAGNOSTIC.value: Workbench._diagnostic,  # pyright: ignore[reportPrivateUsage]
    Kind.RETRY_SCHEDULED.value: Workbench._retry,  # pyright: ignore[reportPrivateUsage]
    Kind.ATTEMPT_LOST.value: Workbench._lost,  # pyright: ignore[reportPrivateUsage]
    Kind.STREAM_GAP.value: Workbench._gap,  # pyright: ignore[reportPrivateUsage]
}
