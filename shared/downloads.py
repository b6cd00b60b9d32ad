"""A body of any size, streamed from blocks under a head of its own; cut, never ended, where its source breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from shared.sse import STALL_SECONDS, Blocks, CutError, EventStream

# A source that gives nothing for so long has broken off without saying so.
SILENCE_SECONDS = 30.0


class Download(EventStream):
    """``headers``: of the answer, names in lower case. The source is closed when the caller has it all, or leaves."""

    def __init__(self, blocks: Blocks, headers: Mapping[str, str]) -> None:
        super().__init__(blocks, SILENCE_SECONDS)
        self._source = blocks
        self._head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await super().__call__(scope, receive, send)
            return
        await self._source.close()
        await self._begin(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        await self._begin(send)
        while (block := await self._source.next(SILENCE_SECONDS)) is not None:
            if not block:
                raise CutError(f"silent for {SILENCE_SECONDS:g} s")
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._head})
