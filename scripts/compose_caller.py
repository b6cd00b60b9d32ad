"""A caller of a composed stack: starts runs, follows them over SSE from replica to replica, holds their logs to the promise."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.contracts.events import RunEvent
from shared.contracts.runs import TERMINAL
from shared.sse import Frame, FrameReader

ANSWER_SECONDS = 60.0
RUN_SECONDS = 90.0
SILENCE_SECONDS = 30.0
AGAIN_SECONDS = 0.2

Json = dict[str, Any]


class BrokenPromiseError(Exception):
    """The stack did something else than it says it does."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPromiseError(what)


def script(*steps: Json) -> str:
    """A prompt that the scripted engine carries out."""
    return json.dumps({"script": list(steps)})


@dataclass
class Caller:
    """``urls`` tells where the control planes are now; a call goes to the next one when one does not answer."""

    urls: Callable[[], list[str]]
    key: str
    cuts: int = 0
    _known: list[str] = field(default_factory=list[str])

    async def call(self, method: str, path: str, at: int = 0, **request: Any) -> Json:
        """The JSON of a 2xx answer. Calls are repeated for ``ANSWER_SECONDS`` while nobody answers."""
        deadline = time.monotonic() + ANSWER_SECONDS
        async with self._client() as client:
            while True:
                try:
                    answer = await client.request(method, f"{await self._url(at)}{path}", **request)
                    if answer.status_code < 500:
                        break
                except httpx.TransportError as error:
                    expect(time.monotonic() < deadline, f"nobody answered {method} {path}: {error!r}")
                    self._known, at = [], at + 1
                expect(time.monotonic() < deadline, f"nobody could answer {method} {path}")
                await asyncio.sleep(AGAIN_SECONDS)
        expect(answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    async def start(self, prompt: str, at: int = 0, **request: Any) -> str:
        asked = {"provider": "scripted", "prompt": prompt, **request}
        body = {name: value for name, value in asked.items() if value is not None}
        return (await self.call("POST", "/api/runs/start", at, json=body))["runId"]

    async def show(self, run_id: str) -> Json:
        return await self.call("GET", f"/api/runs/{run_id}")

    async def reply(self, run_id: str, answer: str, at: int = 0) -> None:
        [question] = (await self.show(run_id))["pendingQuestions"]
        body = {"questionId": question["questionId"], "answer": answer}
        await self.call("POST", f"/api/runs/{run_id}/human-loop/reply", at, json=body)

    async def events(self, run_id: str) -> list[Json]:
        """The stored log, whole."""
        found: list[Json] = []
        after: str | None = "0"
        while after is not None:
            page = await self.call("GET", f"/api/runs/{run_id}/events", params={"after": after, "limit": 5000})
            found += page["items"]
            after = page["nextCursor"]
        return found

    async def until(self, run_id: str, holds: Callable[[Json], bool], within: float = RUN_SECONDS) -> Json:
        """The snapshot once this holds."""
        deadline = time.monotonic() + within
        while not holds(shown := await self.show(run_id)):
            expect(time.monotonic() < deadline, f"after {within:.0f} s {run_id} is {shown['status']} ({shown['phase']})")
            await asyncio.sleep(AGAIN_SECONDS)
        return shown

    async def until_ended(self, run_id: str, within: float = RUN_SECONDS) -> Json:
        return await self.until(run_id, lambda shown: shown["status"] in TERMINAL, within)

    async def until_working(self, run_id: str, text: str) -> None:
        """Until the run's stream has shown this text."""
        async with asyncio.timeout(RUN_SECONDS):
            async for frame in self._frames(run_id, 0, 0):
                if text.encode() in frame.data:
                    return
        raise BrokenPromiseError(f"the stream of {run_id} ended before {text!r}")

    async def follow(self, run_id: str, at: int = 0) -> list[Frame]:
        """Every frame of the run to its end; after a cut the next replica goes on from the last cursor."""
        seen: list[Frame] = []
        deadline = time.monotonic() + RUN_SECONDS
        while not seen or not _is_last(seen[-1]):
            expect(time.monotonic() < deadline, f"the stream of {run_id} does not end")
            try:
                async for frame in self._frames(run_id, int(seen[-1].id) if seen else 0, at):
                    seen.append(frame)
            except httpx.TransportError:
                self.cuts += 1
                self._known, at = [], at + 1
                await asyncio.sleep(AGAIN_SECONDS)
        return seen

    async def check(self, run_id: str) -> list[Json]:
        """The log of an ended run: dense from 1, one last word, and the same on every replica's stream."""
        events = await self.events(run_id)
        expect([each["cursor"] for each in events] == list(range(1, len(events) + 1)), f"the cursors of {run_id} have gaps")
        ends = [each["cursor"] for each in events if each["kind"] == "run.status" and each["data"]["status"] in TERMINAL]
        expect(ends == [len(events)], f"{run_id} has its last word at {ends} of {len(events)}")
        for at in range(len(await asyncio.to_thread(self.urls))):
            matches(await self.follow(run_id, at), events)
        return events

    async def _frames(self, run_id: str, cursor: int, at: int) -> AsyncGenerator[Frame]:
        reader = FrameReader()
        headers = {"accept": "text/event-stream", "last-event-id": str(cursor)}
        async with self._client() as client:
            address = f"{await self._url(at)}/api/runs/{run_id}/stream"
            async with client.stream("GET", address, headers=headers) as answer:
                expect(answer.status_code == 200, f"the stream of {run_id} answers {answer.status_code}")
                async for block in answer.aiter_bytes():
                    for frame in reader.feed(block):
                        yield frame

    async def _url(self, at: int) -> str:
        while not self._known:
            self._known = await asyncio.to_thread(self.urls)
        return self._known[at % len(self._known)]

    def _client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(headers=headers, timeout=SILENCE_SECONDS, trust_env=False)


def matches(frames: list[Frame], events: list[Json]) -> None:
    """Raises ``BrokenPromiseError`` unless a reader saw exactly the stored events, in order, each under its own number."""
    expect([int(each.id) for each in frames] == [each["cursor"] for each in events], "a reader missed or repeated a cursor")
    for frame, event in zip(frames, events, strict=True):
        same = RunEvent.model_validate_json(frame.data) == RunEvent.model_validate(event)
        expect(same, f"a reader saw {frame.data.decode()}, and what is stored is {event}")


def _is_last(frame: Frame) -> bool:
    return frame.event == b"run.status" and json.loads(frame.data)["data"]["status"] in TERMINAL
