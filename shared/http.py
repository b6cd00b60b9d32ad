"""Control calls between services: one JSON request, one JSON answer. The only module here that imports httpx.

The caller learns one of three things: the answer, a definite no, or that nobody knows. Only a definite no (a problem that
says so, or ``NeverSentError``) lets an attempt be placed elsewhere. Nothing here retries, and no stream is read here
(see ``shared.upstream``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from shared.contracts.problems import error_of

CONNECT_SECONDS = 2.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024

Params = Mapping[str, str | int | None]
Model = TypeVar("Model", bound=BaseModel)


class NoAnswerError(Exception):
    """A peer gave no answer that can be understood."""


class NeverSentError(NoAnswerError):
    """The request never reached its server: nothing happened there."""


class UnknownOutcomeError(NoAnswerError):
    """The request may have been carried out, or not: repeat it at the same server, or ask there."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came, undecoded. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@cache
def _tls() -> ssl.SSLContext:
    """One for all clients: making it costs more than a thousand calls."""
    return ssl.create_default_context()


class ServiceClient:
    """A pool of connections to other services. Owned by whoever made it: ``close`` it.

    ``base_url`` "": paths are whole URLs. Timeouts are seconds for the whole call, connecting included.
    """

    def __init__(self, base_url: str, token: str | None, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {token}"} if token is not None else {},
            verify=_tls(),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=20.0),
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        answer: type[Model],
        timeout: float,
        body: BaseModel | None = None,
        params: Params | None = None,
    ) -> Model:
        """The peer's answer. Raises its problem as ``RunyardError``, ``NeverSentError`` or ``UnknownOutcomeError``."""
        raw = await self._told(method, path, timeout, body, params)
        try:
            return answer.model_validate_json(raw.content)
        except ValidationError as error:
            raise UnknownOutcomeError(f"{path} answered {raw.status} with no {answer.__name__}") from error

    async def tell(
        self, method: str, path: str, *, timeout: float, body: BaseModel | None = None, params: Params | None = None
    ) -> None:
        """``call`` for where only yes or no matters; the answer's body is not read into anything."""
        await self._told(method, path, timeout, body, params)

    async def forward(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Params | None = None,
    ) -> RawAnswer:
        """The answer as it came, whatever its status. Raises ``NeverSentError`` or ``UnknownOutcomeError``."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            request = self._client.build_request(
                method, path, content=content, headers=headers, params=given or None, timeout=_timeouts(timeout)
            )
            async with asyncio.timeout(timeout):
                return await self._answer(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise NeverSentError(f"{path}: {_reason(error)}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise UnknownOutcomeError(f"{path}: {_reason(error)}") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _told(self, method: str, path: str, timeout: float, body: BaseModel | None, params: Params | None) -> RawAnswer:
        content = body.model_dump_json(by_alias=True, exclude_none=True).encode() if body is not None else None
        headers = {"content-type": "application/json"} if content is not None else None
        raw = await self.forward(method, path, timeout=timeout, content=content, headers=headers, params=params)
        if raw.status < 300:
            return raw
        error = error_of(raw.status, raw.content, raw.headers.get("retry-after"))
        raise error if error is not None else UnknownOutcomeError(f"{path} answered {raw.status} without a problem")

    async def _answer(self, request: httpx.Request) -> RawAnswer:
        response = await self._client.send(request, stream=True)
        try:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > self._max_answer_bytes:
                    raise UnknownOutcomeError(f"{request.url.path}: the answer is longer than {self._max_answer_bytes} bytes")
            return RawAnswer(response.status_code, dict(response.headers), bytes(content))
        finally:
            await response.aclose()


def _timeouts(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS), pool=None)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
