"""Passing calls, streams and files through to one executor: bytes in, bytes out. Parses no JSON, keeps no state.

What came back is passed on unchanged, an executor's problem too. What did not come back leaves as a problem with one more
member, ``sent``: false when the executor never got the request (it may be made elsewhere), null when nobody knows (it may
only be repeated at the same executor). A stream or file that is cut upstream is cut here at once, never ended.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from starlette.responses import Response

from shared.downloads import Download
from shared.errors import ErrorCode, RunyardError, invalid
from shared.http import NeverSentError, NoAnswerError, Params, ServiceClient, UnknownOutcomeError
from shared.sse import CutError, EventStream
from shared.upstream import Upstream, open_stream

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
# The executor's heartbeat comes every 2 s; a connection that is silent this long has no executor behind it.
SILENCE_SECONDS = 30.0
_PASSED_ON = ("content-type", "retry-after", "location")
_FILE_HEADERS = ("content-type", "content-length", "content-disposition", "etag", "last-modified")


class Relay:
    """Knows the streams that pass through it only to cut them when the manager is told to end."""

    def __init__(self, client: ServiceClient, token: str | None) -> None:
        self._client = client
        self._token = token
        self._open_streams: set[_Passing] = set()
        self.is_leaving = False

    def leave(self) -> None:
        """Cut every stream at once: their readers go on through another manager, or through the next one here."""
        self.is_leaving = True
        for each in self._open_streams:
            each.abort()

    async def pass_on(self, method: str, url: str, params: Params, content: bytes, timeout: float) -> Response:
        """One control call and its answer, as bytes."""
        headers = {"content-type": "application/json"} if content else None
        try:
            raw = await self._client.forward(
                method, url, timeout=timeout, content=content or None, headers=headers, params=params
            )
        except NoAnswerError as error:
            raise _unanswered(error) from error
        return Response(raw.content, raw.status, {name: raw.headers[name] for name in _PASSED_ON if name in raw.headers})

    async def follow(self, url: str, params: Params, last_event_id: str | None) -> EventStream:
        """The executor's event stream. Its heartbeats pass through, so none is added. Raises ``invalid_request`` for an id that
        no header can carry on."""
        if last_event_id is not None and not last_event_id.isprintable():
            raise invalid("Last-Event-ID", "printable characters only")
        passing = await self._open(url, params, {} if last_event_id is None else {"last-event-id": last_event_id})
        return EventStream(passing, heartbeat_seconds=SILENCE_SECONDS)

    async def download(self, url: str, params: Params) -> Download:
        """A file or log of the executor, of any size."""
        passing = await self._open(url, params, {})
        return Download(passing, {name: passing.headers[name] for name in _FILE_HEADERS if name in passing.headers})

    async def _open(self, url: str, params: Params, headers: dict[str, str]) -> _Passing:
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        query = urlencode({name: value for name, value in params.items() if value is not None})
        try:
            upstream = await open_stream(f"{url}?{query}" if query else url, headers, CONNECT_SECONDS, ANSWER_SECONDS)
            if self.is_leaving:  # meanwhile; nobody would cut it any more
                await upstream.close()
                raise UnknownOutcomeError("the manager is stopping")
        except NoAnswerError as error:
            raise _unanswered(error) from error
        passing = _Passing(upstream, self._open_streams.discard)
        self._open_streams.add(passing)
        return passing


class _Passing:
    """Blocks of an upstream that is never silent for long: silence is a cut."""

    def __init__(self, upstream: Upstream, on_close: Callable[[_Passing], None]) -> None:
        self.headers = upstream.headers
        self._upstream = upstream
        self._on_close = on_close

    async def next(self, within: float) -> bytes | None:
        block = await self._upstream.next(within)
        if block == b"":
            raise CutError(f"silent for {within:g} s")
        return block

    async def close(self) -> None:
        await self._upstream.close()
        self._on_close(self)

    def abort(self) -> None:
        self._upstream.abort()


def _unanswered(error: NoAnswerError) -> RunyardError:
    sent = False if isinstance(error, NeverSentError) else None
    detail = f"the executor {'was not reached' if sent is False else 'gave no answer'}: {error}"
    return RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, detail, retry_after=1, extra={"sent": sent})
