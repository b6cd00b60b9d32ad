"""The client of a Runyard control plane: start runs, follow them across any cut, answer their questions.

Answers are the JSON of the wire as it stands (camelCase); only events get a shape of their own. Nothing here prints, and a
key is never part of an error.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

Json = dict[str, Any]

TERMINAL = frozenset({"success", "error", "timeout", "canceled"})
CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0
TRIES = 3
SILENCE_SECONDS = 45.0  # three missed heartbeats: the connection is dead although nobody said so
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 5.0
GIVE_UP_SECONDS = 120.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
STEPS = frozenset({".", ".."})


class RunyardApiError(Exception):
    """The server said no. ``problem`` is its RFC 9457 body, or what could be made of the answer."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.status = status
        self.problem = dict(problem)
        self.retry_after = retry_after

    @property
    def code(self) -> str | None:
        return self.problem.get("code")

    @property
    def retryable(self) -> bool:
        return bool(self.problem.get("retryable", self.status >= 500))

    @property
    def hint(self) -> str | None:
        return self.problem.get("hint")


class RunyardUnreachableError(Exception):
    """Nobody answered, for as long as we were willing to try."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run. ``text`` is its JSON as it came over the wire; ``cursor`` is its number for ever."""

    cursor: int
    kind: str
    run_id: str
    attempt: int
    at: str
    data: Json
    text: str = field(repr=False)

    @property
    def is_terminal(self) -> bool:
        return self.kind == "run.status" and self.data.get("status") in TERMINAL


class Runyard:
    """``async with Runyard(url, key) as runyard``. Raises ``RunyardUnreachableError`` for what is no address, or lies behind
    a proxy that cannot be used, and ``RunyardApiError`` for what cannot be a key.

    Every method raises ``RunyardApiError`` when refused and ``RunyardUnreachableError`` when nobody answers. Calls are
    repeated after a cut: posts carry an idempotency key, so a repeat never starts or says a thing twice. One client may
    follow any number of runs.
    """

    def __init__(self, url: str, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        timeout = httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None)  # a stream holds one for as long as its run: calls must not wait for it
        headers = _signed(key)
        try:
            self._http = httpx.AsyncClient(
                base_url=url, headers=headers, timeout=timeout, limits=limits, transport=transport, trust_env=not _is_local(url)
            )
        except httpx.InvalidURL as error:
            raise RunyardUnreachableError(f"{url} is no address ({error})") from error
        except (ImportError, ValueError) as error:
            raise RunyardUnreachableError(f"the proxy this environment names cannot be used: {error}") from error

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, trace: TracebackType | None = None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def start(self, prompt: str, *, idempotency_key: str | None = None, **request: Any) -> Json:
        """``{runId, accepted, warnings, status, links}``. ``request``: further fields as on the wire (``provider``, ``model``,
        ``engineMode``, ``sessionId``, …); those that are None are left out."""
        return await self._post("/api/runs/start", {"prompt": prompt, **_given(request)}, idempotency_key)

    async def get(self, run_id: str) -> Json:
        """The snapshot of a run."""
        return await self._call("GET", f"/api/runs/{_part(run_id)}")

    async def list(self, **filters: Any) -> Json:
        """``{items, nextCursor}``, newest first. Filters: status, source, provider, appId, sessionId, cursor, limit."""
        return await self._call("GET", "/api/runs", params=_given(filters))

    async def events(self, run_id: str, after: int = 0, limit: int | None = None) -> Json:
        """``{items, nextCursor}``: stored events with a cursor above ``after``."""
        return await self._call("GET", f"/api/runs/{_part(run_id)}/events", params=_given({"after": after, "limit": limit}))

    async def stop(self, run_id: str) -> Json:
        """Idempotent; the run ends soon after, unless it has ended already."""
        return await self._post(f"/api/runs/{_part(run_id)}/stop", {})

    async def reply(
        self, run_id: str, question_id: str, *, answer: Any = None, decision: str | None = None, message: str | None = None
    ) -> Json:
        """Give ``answer`` (text, a list, or {question: answer}) or ``decision``. The same reply again is a ``duplicate``."""
        said = _given({"answer": answer, "decision": decision, "message": message})
        return await self._post(f"/api/runs/{_part(run_id)}/human-loop/reply", {"questionId": question_id, **said})

    async def say(self, run_id: str, text: str, *, idempotency_key: str | None = None) -> Json:
        """A further user message into a run: ``{runId, messageId, status, …}``; the run's events tell what becomes of it."""
        return await self._post(f"/api/runs/{_part(run_id)}/messages", {"text": text}, idempotency_key)

    async def files(self, run_id: str, *, cursor: str | None = None) -> Json:
        """``{items: [{path, bytes, modifiedAt}], nextCursor}``: a page of the plain files of the run's workspace."""
        return await self._call("GET", f"/api/runs/{_part(run_id)}/files", params=_given({"cursor": cursor}))

    async def download(self, run_id: str, path: str | None = None) -> AsyncGenerator[bytes]:
        """The bytes of one file, or of a zip of all; raises ``RunyardUnreachableError`` where they are cut off."""
        what = "bundle" if path is None else f"files/{'/'.join(map(_part, path.split('/')))}"
        try:
            async with self._http.stream("GET", f"/api/runs/{_part(run_id)}/{what}") as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(response)
                async for block in response.aiter_bytes():
                    yield block
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error

    async def pending(self, **filters: Any) -> Json:
        """``{items, nextCursor}``: the questions that wait, across runs, oldest first. Filters: cursor, limit."""
        return await self._call("GET", "/api/human-loop/pending", params=_given(filters))

    async def logs(self, run_id: str, stream: str, byte_from: int = 0, attempt: int | None = None) -> Json:
        """A range of raw output: ``byteFrom, byteTo, totalBytes, text, base64``."""
        return await self._call(
            "GET", f"/api/runs/{_part(run_id)}/logs/{_part(stream)}", params=_given({"byteFrom": byte_from, "attempt": attempt})
        )

    async def readiness(self) -> Json:
        """The whole chain: database, manager, executors, each provider."""
        return await self._call("GET", "/api/system/readiness", also=(503,))

    async def stream(self, run_id: str, after: int = 0, patience: float = GIVE_UP_SECONDS) -> AsyncGenerator[Event]:
        """Every event with a cursor above ``after``, each once and in order, until the run has ended.

        Comes back after any cut by cursor. Raises ``RunyardUnreachableError`` after ``patience`` seconds without an answer.
        """
        patient = _Patience(patience, self._http.base_url)
        cursor = after
        while True:
            try:
                async with aclosing(self._connection(run_id, cursor, patient)) as events:
                    async for event in events:
                        patient.heard()
                        cursor = event.cursor
                        yield event
                        if event.is_terminal:
                            return
                if not patient.is_sent_away and await self._ended_before(run_id, cursor):
                    return
                patient.answered()
            except (httpx.TransportError, SSEError, RunyardUnreachableError, RunyardApiError) as error:
                patient.outlast(error)
            await patient.wait()

    async def _connection(self, run_id: str, cursor: int, patient: _Patience) -> AsyncGenerator[Event]:
        """The events above ``cursor`` of one connection, until its end; raises ``httpx.TransportError`` where it was cut."""
        patient.connects()
        headers = {"accept": "text/event-stream", "cache-control": "no-store", "last-event-id": str(cursor)}
        timeout = httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS, read=SILENCE_SECONDS)
        async with self._http.stream("GET", f"/api/runs/{_part(run_id)}/stream", headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                await response.aread()
                raise _refusal(response)
            async with aclosing(EventSource(response).aiter_sse()) as frames:
                async for frame in frames:
                    if frame.retry is not None:
                        patient.told(frame.retry / 1000)
                    if (event := _event(frame)) is not None and event.cursor > cursor:
                        cursor = event.cursor
                        yield event

    async def _ended_before(self, run_id: str, cursor: int) -> bool:
        """Whether a stream that ended without a last word had none left to give."""
        run = await self.get(run_id)
        return run.get("status") in TERMINAL and int(run.get("lastCursor", 0)) <= cursor

    async def _post(self, path: str, body: Json, idempotency_key: str | None = None) -> Json:
        return await self._call("POST", path, json=body, headers={"idempotency-key": idempotency_key or uuid4().hex})

    async def _call(self, method: str, path: str, also: tuple[int, ...] = (), **request: Any) -> Json:
        """The JSON of the answer; ``also``: statuses that carry one although they are no success."""
        for remaining in reversed(range(TRIES)):
            try:
                response = await self._http.request(method, path, **request)
                break
            except httpx.TransportError as error:
                if not remaining:
                    raise _unreachable(self._http.base_url, error) from error
                await asyncio.sleep(FIRST_DELAY_SECONDS)
        else:
            raise AssertionError("the last try raises")
        if not response.is_success and response.status_code not in also:
            raise _refusal(response)
        try:
            return response.json()
        except ValueError as error:
            raise RunyardApiError(response.status_code, {"detail": "the answer is not JSON: is this a Runyard?"}) from error


class _Patience:
    """How long to wait between two tries, and when it has been enough: growing delays, shortened by every event."""

    def __init__(self, seconds: float, url: httpx.URL) -> None:
        self._seconds = seconds
        self._url = url
        self._delay = FIRST_DELAY_SECONDS
        self._answered_at = time.monotonic()
        self._times_told = 0

    def connects(self) -> None:
        self._times_told = 0

    def told(self, seconds: float) -> None:
        """A stream says at its beginning when to come back after a cut, and again when its server is about to end."""
        self._times_told += 1
        self._delay = min(FIRST_DELAY_SECONDS, seconds)
        self.answered()

    @property
    def is_sent_away(self) -> bool:
        """The stream goes on at another server: this one need not be asked anything more."""
        return self._times_told > 1

    def heard(self) -> None:
        self._delay = FIRST_DELAY_SECONDS
        self.answered()

    def answered(self) -> None:
        self._answered_at = time.monotonic()

    def outlast(self, error: Exception) -> None:
        """Raises when waiting would not help, or has been tried for long enough."""
        is_over = time.monotonic() - self._answered_at > self._seconds
        if isinstance(error, RunyardApiError):
            if is_over or (error.status < 500 and error.status != 429):
                raise error
            self._delay = max(self._delay, min(error.retry_after or 0.0, LONGEST_DELAY_SECONDS))
        elif is_over:
            raise _unreachable(self._url, error) from error

    async def wait(self) -> None:
        await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(self._delay * 2, LONGEST_DELAY_SECONDS)


def _is_local(url: str) -> bool:
    """A server on this machine: no proxy stands between, and none may see its key."""
    return httpx.URL(url).host in LOOPBACK


def _signed(key: str | None) -> dict[str, str]:
    """Refuses a key that no header can carry: whoever tried to send it would show it in an error."""
    if key and not (key.isascii() and key.isprintable()):
        raise RunyardApiError(401, {"code": "unauthorized", "detail": "the key holds more than printable ASCII: a line's end?"})
    return {"authorization": f"Bearer {key}"} if key else {}


def _part(text: str) -> str:
    """One part of a path, whatever stands in it. Refuses a step: it would lead to another path, quoted or not."""
    if text in STEPS:
        raise RunyardApiError(422, {"code": "invalid_request", "detail": f"«{text}» is no name in a path"})
    return quote(text, safe="")


def _given(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _event(frame: ServerSentEvent) -> Event | None:
    """None for a frame without data: the parser makes one of every heartbeat comment once an id was seen."""
    if not frame.data:
        return None
    try:
        said: Json = json.loads(frame.data)
    except ValueError as error:
        raise SSEError("a frame that is not JSON") from error
    cursor = int(frame.id) if frame.id.isdecimal() else int(said.get("cursor", 0))
    data: Json = said.get("data", said)
    return Event(
        cursor, frame.event, str(said.get("runId", "")), int(said.get("attempt", 0)), str(said.get("at", "")), data, frame.data
    )


def _refusal(response: httpx.Response) -> RunyardApiError:
    try:
        problem: Json = response.json()
    except ValueError:
        problem = {"detail": f"HTTP {response.status_code} from {response.url.copy_with(query=None)}"}
    after = response.headers.get("retry-after", "")
    return RunyardApiError(response.status_code, problem, float(after) if after.isdecimal() else None)


def _unreachable(url: httpx.URL, error: Exception) -> RunyardUnreachableError:
    return RunyardUnreachableError(f"no answer from {url} ({type(error).__name__})")
