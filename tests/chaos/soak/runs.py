"""The runs of the soak: what their scripts say, how their callers behave, and how each must end."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any, Self

import httpx

from shared.contracts.runs import TERMINAL
from shared.errors import RunyardError
from shared.http import NoAnswerError
from shared.sse import CutError, Frame, FrameReader
from shared.upstream import open_stream
from tests.e2e.kit import Stack, script

CALL_SECONDS = 60.0
RUN_SECONDS = 180.0
POLL_SECONDS = 0.25
FULL_PAUSE_SECONDS = 0.2
SESSIONS = 500

_SAYS: tuple[dict[str, Any], ...] = (
    {"think": "let me see"},
    {"deltas": ["a ", "few ", "words"], "everyMs": 1},
    {"tool": {"name": "shell", "input": {"command": "ls"}, "output": "a\nb\nc", "status": "completed"}},
    {"usage": {"inputTokens": 10, "outputTokens": 20}},
    {"say": "that is all of run {i}"},
)


def prompt_of(number: int) -> tuple[str, str]:
    """The prompt of a run, and the status in which it must end."""
    match number % 20:
        case 3:
            return script(*_SAYS, {"fail": {"code": "context_overflow", "message": "too much"}}), "error"
        case 7:
            return script({"say": "up"}, {"ask": {"prompt": "which colour?"}}, *_SAYS), "success"
        case 13:
            return script(*_SAYS, {"exit": 3}), "error"
        case 17:
            return script({"say": "up"}, {"hang": True}), "canceled"
        case _:
            return script(*_SAYS), "success"


class Caller:
    """Many callers in one process. ``finished`` counts runs that are over; ``faults`` tells what did not go as it must."""

    def __init__(self, stack: Stack) -> None:
        facts = stack.facts
        self._urls = [each["url"] for each in facts["services"] if each["name"].startswith("control-plane")]
        self._headers = {"authorization": f"Bearer {facts['apiKey']}"}
        self._http = httpx.AsyncClient(
            headers=self._headers, timeout=CALL_SECONDS, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        self._stack = AsyncExitStack()
        self.finished = 0
        self.faults: list[str] = []

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._http)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def one(self, number: int) -> None:
        """One run from its start to its end; of three one is followed, one waited for, one looked at now and then."""
        prompt, must_end = prompt_of(number)
        url = self._urls[number % len(self._urls)]
        try:
            async with asyncio.timeout(RUN_SECONDS):
                run_id, ended = await self._through(url, number, prompt)
                ended = ended if ended == must_end else await self._why(url, run_id)
        except (TimeoutError, httpx.HTTPError, NoAnswerError, RunyardError) as error:
            ended = f"nobody knows how ({type(error).__name__}: {error})"
        if ended != must_end:
            self.faults.append(f"run {number} ended {ended}, not {must_end}")
        self.finished += 1

    async def _why(self, url: str, run_id: str) -> str:
        """How it ended instead, for people."""
        shown = (await self._http.get(f"{url}/api/runs/{run_id}")).raise_for_status().json()
        return f"{shown['status']} ({run_id}: {shown['errorCode']}, {shown['errorMessage']})"

    async def _through(self, url: str, number: int, prompt: str) -> tuple[str, str]:
        """The run's id, and the status in which it ended."""
        speaks = number % 20 in (7, 17)  # somebody must hear its question, or see that it is up
        if number % 3 == 1 and not speaks:
            shown = (await self._start(url, number, prompt, wait=True))["snapshot"]
            return shown["runId"], shown["status"]
        run_id = (await self._start(url, number, prompt))["runId"]
        if number % 3 == 0 or speaks:
            return run_id, await self._follow(url, run_id)
        return run_id, await self._look(url, run_id)

    async def _start(self, url: str, number: int, prompt: str, wait: bool = False) -> dict[str, Any]:
        body: dict[str, Any] = {"provider": "scripted", "prompt": prompt}
        if number % 10 == 4:
            body["sessionId"] = f"session-{number // 10 % SESSIONS}"
        while True:
            answer = await self._http.post(f"{url}/api/runs/start", json=body, params={"wait": 60} if wait else {})
            if answer.status_code in (200, 202):
                return answer.json()
            if answer.status_code != 429:
                raise NoAnswerError(f"{answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(FULL_PAUSE_SECONDS)  # as an answer 429 asks for

    async def _look(self, url: str, run_id: str) -> str:
        while True:
            shown = (await self._http.get(f"{url}/api/runs/{run_id}")).raise_for_status().json()
            if shown["status"] in TERMINAL:
                return shown["status"]
            await asyncio.sleep(POLL_SECONDS)  # a caller that looks now and then

    async def _follow(self, url: str, run_id: str) -> str:
        """To the end, by cursor over however many connections; questions are answered, who hangs is stopped."""
        cursor = 0
        while True:
            upstream = await open_stream(f"{url}/api/runs/{run_id}/stream?cursor={cursor}", self._headers, 5)
            reader = FrameReader()
            try:
                while (block := await upstream.next(CALL_SECONDS)) is not None:
                    for frame in reader.feed(block):
                        cursor = int(frame.id)
                        if (ended := await self._react(url, run_id, frame)) is not None:
                            return ended
            except CutError:
                continue
            finally:
                await upstream.close()

    async def _react(self, url: str, run_id: str, frame: Frame) -> str | None:
        """The status it told, if that is its last."""
        data = json.loads(frame.data)["data"]
        match frame.event:
            case b"interaction.requested":
                reply = {"questionId": data["questionId"], "answer": "blue"}
                (await self._http.post(f"{url}/api/runs/{run_id}/human-loop/reply", json=reply)).raise_for_status()
            case b"message.completed" if data["text"] == "up" and not data["final"]:
                pass
            case b"message.completed" if data["text"] == "up":
                (await self._http.post(f"{url}/api/runs/{run_id}/stop")).raise_for_status()
            case b"run.status" if data["status"] in TERMINAL:
                return data["status"]
            case _:
                pass
        return None
