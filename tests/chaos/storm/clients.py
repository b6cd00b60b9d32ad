"""A client as ours are: it starts a run, follows it at any replica, answers its questions, and comes back by cursor.

It keeps what it heard and what was promised to it, for the checker; it judges nothing itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.contracts.runs import TERMINAL
from shared.sse import Frame
from tests.e2e.kit import Frames, script

BACK_OFF_SECONDS = 0.2
SILENCE_SECONDS = 20.0  # heartbeats come every few seconds: a silent connection is a dead one
LONGEST_THOUGHT_SECONDS = 12.0

TICKING = "ticks"
ASKING = "asks"


@dataclass
class Followed:
    """One run as its client saw it. ``ticks``: how many its script says. ``at``: when each frame came, by the monotonic clock."""

    run_id: str
    kind: str
    ticks: int
    frames: list[Frame] = field(default_factory=list[Frame])
    at: list[float] = field(default_factory=list[float])
    executor: str | None = None
    promised: dict[str, str] = field(default_factory=dict[str, str])  # answers that were accepted, by question
    connections: int = 0

    @property
    def cursor(self) -> int:
        return int(self.frames[-1].id) if self.frames else 0

    @property
    def ended(self) -> str | None:
        """The status its terminal event told."""
        if not self.frames or self.frames[-1].event != b"run.status":
            return None
        status = json.loads(self.frames[-1].data)["data"]["status"]
        return status if status in TERMINAL else None


def prompt_of(kind: str, ticks: int) -> str:
    if kind == TICKING:
        return script({"repeat": {"count": ticks, "everyMs": 500, "say": "tick {i}"}})
    return script(
        {"spawn": ["sleep", "600"], "setsid": True}, {"say": "up"}, {"ask": {"prompt": "which colour?"}}, {"say": "after"}
    )  # fmt: skip


@dataclass
class Client:
    """``urls`` are all replicas; every connection goes to the next one."""

    urls: Callable[[], Sequence[str]]
    http: httpx.AsyncClient
    chance: random.Random
    _turn: int = 0

    def _url(self) -> str:
        self._turn += 1
        urls = self.urls()
        return urls[self._turn % len(urls)]

    async def one_run(self, kind: str, ticks: int, followed: Callable[[Followed], None]) -> Followed:
        """From its start to its end, however often parts of the stack die on the way."""
        run = Followed(await self._start(kind, ticks), kind, ticks if kind == TICKING else 0)
        followed(run)
        replies: set[asyncio.Task[None]] = set()
        try:
            while run.ended is None:
                try:
                    await self._follow(run, replies)
                except (httpx.HTTPError, OSError):
                    pass
                if run.ended is None:
                    await asyncio.sleep(BACK_OFF_SECONDS * self.chance.uniform(0.5, 1.5))  # back-off
        finally:
            for reply in replies:
                reply.cancel()
            answered = await asyncio.gather(*replies, return_exceptions=True)
        for outcome in answered:
            if isinstance(outcome, Exception):
                raise outcome
        return run

    async def _start(self, kind: str, ticks: int) -> str:
        """Asked again with its key until somebody has answered: one run, however often it was asked."""
        body = {"provider": "scripted", "prompt": prompt_of(kind, ticks)}
        answer = await self._persistently("/api/runs/start", body, f"storm-{self.chance.getrandbits(64):x}")
        assert answer.status_code == 202, answer.text
        return answer.json()["runId"]

    async def _follow(self, run: Followed, replies: set[asyncio.Task[None]]) -> None:
        run.connections += 1
        timeout = httpx.Timeout(10, read=SILENCE_SECONDS)
        headers = {"last-event-id": str(run.cursor)} if run.frames else {}
        url = f"{self._url()}/api/runs/{run.run_id}/stream"
        async with self.http.stream("GET", url, headers=headers, timeout=timeout) as answer:
            if answer.status_code != 200:
                return
            async for frame in Frames(answer):
                run.frames.append(frame)
                run.at.append(time.monotonic())
                self._react(run, frame, replies)

    def _react(self, run: Followed, frame: Frame, replies: set[asyncio.Task[None]]) -> None:
        if frame.event == b"attempt.started":
            run.executor = json.loads(frame.data)["data"]["executorId"]
        elif frame.event == b"interaction.requested":
            question = json.loads(frame.data)["data"]["questionId"]
            replies.add(asyncio.create_task(self._answer(run, question)))

    async def _answer(self, run: Followed, question: str) -> None:
        """After some thought. What was answered 200 is a promise."""
        await asyncio.sleep(self.chance.uniform(0, LONGEST_THOUGHT_SECONDS))  # a person thinks
        said = f"colour-{self.chance.getrandbits(48):x}"
        answer = await self._persistently(f"/api/runs/{run.run_id}/human-loop/reply", {"questionId": question, "answer": said})
        if answer.status_code == 200:
            run.promised[question] = said
        else:
            assert answer.status_code == 409, answer.text  # its engine or its run had gone

    async def _persistently(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"idempotency-key": key} if key else {}
        while True:
            try:
                answer = await self.http.post(f"{self._url()}{path}", json=body, headers=headers, timeout=15)
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            except (httpx.HTTPError, OSError):
                pass
            await asyncio.sleep(BACK_OFF_SECONDS * self.chance.uniform(0.5, 1.5))  # back-off
