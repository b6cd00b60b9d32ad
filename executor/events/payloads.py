"""A payload as bytes for the wire: always valid UTF-8, never larger than a reader takes."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError

from shared.contracts.events import AttemptEnded, Diagnostic, Kind, Payload

MAX_EVENT_BYTES = 4 * 1024 * 1024
KEPT_CHARACTERS = 256 * 1024
_CUT_FIELDS = ("text", "input", "output", "result", "prompt", "message", "error_message")


def payload_json(payload: Payload) -> tuple[Kind, bytes]:
    """The kind and the JSON. A payload that is too large is cut where it says ``truncated``, else told as a diagnostic."""
    text = _encoded(payload)
    if len(text) > MAX_EVENT_BYTES:
        payload = _cut(payload)
        text = _encoded(payload)
    if len(text) > MAX_EVENT_BYTES:
        payload = Diagnostic(code="event_too_large", message=f"a {payload.KIND} of {len(text)} bytes was left out")
        text = _encoded(payload)
    return payload.KIND, text


def is_readable(payload: Payload) -> bool:
    """Whether its readers get it as what it is, if shortened, and are able to read it: one that is nested deeply they are not."""
    kind, text = payload_json(payload)
    try:
        type(payload).model_validate_json(text)
    except ValueError:
        return False
    return kind is payload.KIND


def _encoded(payload: Payload) -> bytes:
    try:
        return payload.wire_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        # half a surrogate pair: engines written in JavaScript cut their deltas inside one
        whole = payload.model_dump(by_alias=True, exclude_none=True)
        text = json.dumps(whole, ensure_ascii=False, default=str, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _cut(payload: Payload) -> Payload:
    changes = {name: _shortened(value) for name in _CUT_FIELDS if (value := getattr(payload, name, None)) is not None}
    if "truncated" in type(payload).model_fields:
        changes["truncated"] = True
    return payload.model_copy(update=changes)


def _shortened(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= KEPT_CHARACTERS else text[:KEPT_CHARACTERS]


def speakable(ended: AttemptEnded) -> AttemptEnded:
    """The same, or with its result as text where not everybody could write or read it: half a surrogate pair, a deep nest."""
    try:
        AttemptEnded.model_validate_json(ended.wire_json())
        return ended
    except ValueError:
        message = ended.error_message
        return ended.model_copy(
            update={"result": _as_text(ended.result), "error_message": message and message.encode(errors="replace").decode()}
        )


def _as_text(value: Any) -> str | None:
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return None
