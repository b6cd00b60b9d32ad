"""Passing calls, streams and files through to one executor: bytes in, bytes out. Parses no JSON, keeps no state.

What came back is passed on unchanged, an executor's problem too. What did not come back leaves as a problem with one more
member, ``sent``: false when the executor never got the request (it may be made elsewhere), null when nobody knows (it may
only be repeated at the same executor). A stream or file that is cut upstream is cut here at once, never ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.types import Send

from shared.errors import ErrorCode, RunyardError
from shared.http import NeverSentError, NoAnswerError, Params, ServiceClient
from shared.sse import STALL_SECONDS, CutError, EventStream
from shared.upstream import Upstream, open_stream

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
# The executor's heartbeat comes every 2 s; a connection that is silent this long has no executor behind it.
SILENCE_SECONDS = 30.0
_PASSED_ON = ("content-type", "retry-after", "location")
_FILE_HEADERS = (
    "content-type",
    "content-length",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
)


@dataclass(frozen=True, slots=True)
class Relay:
    client: ServiceClient
    token: str | None

    async def pass_on(self, method: str, url: str, params: Params, content: bytes, timeout: float) -> Response:
        """One control call and its answer, as bytes."""
        headers = {"content-type": "application/json"} if content else None
        try:
            raw = await self.client.forward(method, url, timeout=timeout, content=content or None, headers=headers, params=params)
        except NoAnswerError as error:
            raise _unanswered(error) from error
        return Response(raw.content, raw.status, {name: raw.headers[name] for name in _PASSED_ON if name in raw.headers})

    async def follow(self, url: str, params: Params, last_event_id: str | None) -> EventStream:
        """The executor's event stream. Its heartbeats pass through, so none is added."""
        upstream = await self._open(url, params, {"last-event-id": last_event_id})
        return EventStream(_Loud(upstream), heartbeat_seconds=SILENCE_SECONDS)

    async def download(self, url: str, params: Params, byte_range: str | None) -> Download:
        """A file or log of the executor, of any size."""
        upstream = await self._open(url, params, {"range": byte_range})
        return Download(upstream)

    async def _open(self, url: str, params: Params, wanted: Mapping[str, str | None]) -> Upstream:
        headers = {name: value for name, value in wanted.items() if value is not None}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        query = urlencode({name: value for name, value in params.items() if value is not None})
        try:
            return await open_stream(f"{url}?{query}" if query else url, headers, CONNECT_SECONDS, ANSWER_SECONDS)
        except NoAnswerError as error:
            raise _unanswered(error) from error


class _Loud:
    """Blocks of an upstream that is never silent for long: silence is a cut."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def next(self, within: float) -> bytes | None:
        block = await self._upstream.next(within)
        if block == b"":
            raise CutError(f"silent for {within:g} s")
        return block

    async def close(self) -> None:
        await self._upstream.close()


class Download(EventStream):
    """Any answer of an executor, streamed with its own head; cut and stalled like an event stream."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(_Loud(upstream), SILENCE_SECONDS)
        self._upstream = upstream

    async def _pump(self, send: Send) -> None:
        given = self._upstream.headers
        headers = [(name.encode(), given[name].encode("latin-1")) for name in _FILE_HEADERS if name in given]
        await send({"type": "http.response.start", "status": self._upstream.status, "headers": headers})
        while (block := await self._blocks.next(SILENCE_SECONDS)) is not None:
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _unanswered(error: NoAnswerError) -> RunyardError:
    sent = False if isinstance(error, NeverSentError) else None
    detail = f"the executor {'was not reached' if sent is False else 'gave no answer'}: {error}"
    return RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, detail, retry_after=1, extra={"sent": sent})
