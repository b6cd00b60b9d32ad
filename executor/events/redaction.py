"""Secrets taken out of what an engine prints, by value, before anything else sees it. Lengths stay, so byte offsets stay true."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from shared.contracts.events import (
    Kind,
    MessageCompleted,
    MessageDelta,
    Payload,
    ReasoningCompleted,
    ReasoningDelta,
)

SHORTEST_SECRET = 8
SHORTEST_SECRET_IN_JSON = 16  # beside its tokens a key file has words like "service_account", which are none


def secrets_in(credentials: Iterable[str]) -> tuple[str, ...]:
    """What of credentials nobody may see: a key whole, a key file also piece by piece, an endpoint not at all."""
    return tuple(secret for value in credentials for secret in _secrets_of(value))


def _secrets_of(credential: str) -> Iterator[str]:
    if _is_open_endpoint(credential):
        return
    yield credential
    if credential.lstrip().startswith(("{", "[")):
        try:
            found = json.loads(credential)
        except (ValueError, RecursionError):
            return
        yield from (text for text in _texts(found) if len(text) >= SHORTEST_SECRET_IN_JSON and not _is_open_endpoint(text))


def _is_open_endpoint(value: str) -> bool:
    """A URL that carries no password: people must see it to find out why it does not answer."""
    if not value.startswith(("http://", "https://")):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return "@" not in parts.netloc and not parts.query and not parts.fragment


def _texts(value: Any) -> Iterator[str]:
    """Every string of a JSON value that is no name."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(each)
        case list():
            for each in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(each)
        case _:
            pass


class Redactor:
    """One stream. Bytes that may be the beginning of a secret wait for the next chunk; all others go through at once."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._needles = tuple({form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)})
        self._held = b""
        self._starred = 0  # so many bytes of what is held belong to a secret whose beginning has gone through

    @property
    def is_waiting(self) -> bool:
        return bool(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of the stream, any secret replaced by as many ``*``."""
        if not self._needles:
            return chunk
        text = self._held + chunk
        spans = self._spans(text)
        end = len(text) - max(_longest_start_at_end(text, needle) for needle in self._needles)
        self._held = text[end:]
        self._starred = max((stop - end for start, stop in spans if start < max(end, 1)), default=0)
        return _masked(text[:end], spans)

    def rest(self) -> bytes:
        """The stream is complete: what still waited."""
        spans, text = self._spans(self._held), self._held
        self._held, self._starred = b"", 0
        return _masked(text, spans)

    def _spans(self, text: bytes) -> list[tuple[int, int]]:
        begun = [(0, self._starred)] if self._starred > 0 else []
        return begun + [span for needle in self._needles for span in _occurrences(text, needle)]


class SpokenText:
    """The streamed texts of one attempt: a secret said in pieces, each on a line of its own, is whole where they meet."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
        self._waiting: dict[tuple[Kind, str], tuple[MessageDelta | ReasoningDelta, Redactor]] = {}

    def told(self, payload: Payload) -> list[Payload]:
        """What may be shown now: of a delta all but what may begin a secret, and that before its message's whole text."""
        match payload:
            case MessageDelta() | ReasoningDelta() if self._secrets:
                return list[Payload](self._delta(payload))
            case MessageCompleted(message_id=id):
                return [*self._rest((Kind.MESSAGE_DELTA, id)), self._whole(payload)]
            case ReasoningCompleted(message_id=id):
                return [*self._rest((Kind.REASONING_DELTA, id)), self._whole(payload)]
            case _:
                return [payload]

    def rest(self) -> list[Payload]:
        """Nothing more is said: what still waited."""
        return [payload for key in list(self._waiting) for payload in self._rest(key)]

    def clean(self, text: str) -> str:
        """A whole text, which an adapter may have put together from pieces."""
        redactor = Redactor(self._secrets)
        masked = redactor.feed(text.encode(errors="surrogatepass")) + redactor.rest()
        return masked.decode(errors="surrogatepass")

    def clean_value(self, value: Any) -> Any:
        """The same of JSON: what is masked keeps its length, so it is still JSON; a number that is one leaves its text."""
        if value is None or isinstance(value, str):
            return value and self.clean(value)
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (ValueError, RecursionError):
            return value  # nobody can say it on the wire either
        masked = self.clean(text)
        if masked == text:
            return value
        try:
            return json.loads(masked)
        except (ValueError, RecursionError):
            return masked

    def _whole(self, payload: MessageCompleted | ReasoningCompleted) -> Payload:
        text = self.clean(payload.text)
        return payload if text == payload.text else payload.model_copy(update={"text": text})

    def _delta(self, delta: MessageDelta | ReasoningDelta) -> Iterator[MessageDelta | ReasoningDelta]:
        key = (delta.KIND, delta.message_id)
        _, redactor = self._waiting.pop(key, (delta, Redactor(self._secrets)))
        text = redactor.feed(delta.text.encode(errors="surrogatepass")).decode(errors="surrogatepass")
        if redactor.is_waiting:
            self._waiting[key] = (delta, redactor)
        if text:
            yield delta if text == delta.text else delta.model_copy(update={"text": text})

    def _rest(self, key: tuple[Kind, str]) -> list[Payload]:
        if key not in self._waiting:
            return []
        delta, redactor = self._waiting.pop(key)
        return [delta.model_copy(update={"text": redactor.rest().decode(errors="surrogatepass")})]


def _forms(secret: str) -> set[bytes]:
    """A secret as it is, and as it stands in JSON."""
    return {
        secret.encode(errors="surrogateescape"),
        json.dumps(secret)[1:-1].encode(),
        json.dumps(secret, ensure_ascii=False)[1:-1].encode(errors="surrogateescape"),
    }


def _occurrences(text: bytes, needle: bytes) -> list[tuple[int, int]]:
    """Overlapping ones too."""
    found: list[tuple[int, int]] = []
    start = text.find(needle)
    while start >= 0:
        found.append((start, start + len(needle)))
        start = text.find(needle, start + 1)
    return found


def _longest_start_at_end(text: bytes, needle: bytes) -> int:
    """How many bytes at the end of ``text`` are the beginning, but not the whole, of ``needle``."""
    tail = text[-(len(needle) - 1) :]
    start = tail.find(needle[:1])
    while start >= 0:
        if needle.startswith(tail[start:]):
            return len(tail) - start
        start = tail.find(needle[:1], start + 1)
    return 0


def _masked(text: bytes, spans: list[tuple[int, int]]) -> bytes:
    if not spans:
        return text
    masked = bytearray(text)
    for start, stop in spans:
        masked[start:stop] = b"*" * (min(stop, len(text)) - start) if start < len(text) else b""
    return bytes(masked)
