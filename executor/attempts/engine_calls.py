"""What a conversation asks of the server its engine opened on loopback: one bounded request each, in tasks of this object.

The server is never named: it is the socket on which the engine's own process listens, so nothing else is ever spoken to. Nothing
here repeats a request, knows an engine, or reads an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

import structlog

from executor.adapters.base import Call
from executor.processes import procfs
from shared.errors import ErrorCode, RunyardError
from shared.http import NoAnswerError, ServiceClient

CALL_SECONDS = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_CALLS = 32
EXIT_NOTICED_SECONDS = 0.2
NEVER_ANSWERED = 0

log = structlog.get_logger("engine_calls")


class Engine(Protocol):
    """A process as /proc shows it: its pid, and what it reads its input from."""

    @property
    def pid(self) -> int: ...
    @property
    def input_link(self) -> str: ...


# Called on the event loop with the id of a call and its answer, as ``adapters.base.Call`` describes that.
Answered = Callable[[str, bytes], None]


class EngineCalls:
    """The calls of one attempt. ``close`` it before its process is ended; what is not answered by then never is."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._client: ServiceClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def make(self, call: Call, engine: Engine) -> None:
        """Awaits nothing. Raises ``RunyardError`` when ``MAX_CALLS`` have no answer yet."""
        if self._is_closed:
            return
        if len(self._tasks) >= MAX_CALLS:
            raise RunyardError(ErrorCode.ENGINE_PROTOCOL_ERROR, f"more than {MAX_CALLS} calls to the engine's server at once")
        task = asyncio.create_task(self._carry_out(call, engine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """No answer is given afterwards. Any number of times."""
        self._is_closed = True
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _carry_out(self, call: Call, engine: Engine) -> None:
        """The outermost loop of a call's task."""
        try:
            status, body = await self._asked(call, engine)
        except Exception as error:  # our own failure: the conversation hears that nobody knows, and decides
            log.error("call.failed", path=call.path, exc_info=error)
            status, body = NEVER_ANSWERED, b""
        if status == NEVER_ANSWERED:  # an engine that ends closes its server a moment before its end is noticed
            await asyncio.sleep(EXIT_NOTICED_SECONDS)
        if not self._is_closed:
            self._answered(call.call_id, json.dumps({"status": status}).encode() + b"\n" + body)

    async def _asked(self, call: Call, engine: Engine) -> tuple[int, bytes]:
        port = await asyncio.to_thread(procfs.server_port, engine.pid, engine.input_link)
        if port is None:
            log.warning("call.no_server", path=call.path)
            return NEVER_ANSWERED, b""
        if self._client is None:
            self._client = ServiceClient("", None, MAX_ANSWER_BYTES)
        url, headers = f"http://127.0.0.1:{port}{call.path}", {"content-type": "application/json", **call.headers}
        try:
            answer = await self._client.forward(call.method, url, timeout=CALL_SECONDS, content=call.body, headers=headers)
        except NoAnswerError as error:
            log.warning("call.unanswered", path=call.path, error=str(error))
            return NEVER_ANSWERED, b""
        return answer.status, answer.content
