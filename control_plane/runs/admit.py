"""What a run is refused for before a row exists: everything that no type can express, with the field's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from control_plane.domain.plain_text import refuse_nul
from control_plane.domain.run import IdempotencyKey
from control_plane.domain.timeouts import LONGEST
from shared.contracts.environment import CREDENTIAL_NAMES, REDIRECTING_NAMES, may_be_set
from shared.contracts.interactions import MAX_EXPIRY_ANSWER, OnExpiry
from shared.contracts.runs import MAX_METADATA_BYTES, MAX_PROMPT_BYTES, StartRun
from shared.errors import ErrorCode, RunyardError, invalid
from shared.schemas import Schema
from shared.web import Caller

MAX_KEY = 255
# Only who may spend an operator's credentials may send them elsewhere: to another endpoint, or in another of its dialects.
ADMIN_OPTIONS = ("baseUrl", "wireApi")


def admit(request: StartRun, caller: Caller) -> None:
    """Raises ``invalid_request``, ``payload_too_large`` or ``permission_denied``."""
    prompt_bytes = sum(len(each.content.encode()) for each in request.conversation())
    if prompt_bytes > MAX_PROMPT_BYTES:
        where = "prompt" if request.prompt is not None else "messages"
        raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"{where}: {prompt_bytes} bytes are more than {MAX_PROMPT_BYTES}")
    refuse_nul(request)
    _check_metadata(request.metadata)
    _check_env(request.env, caller)
    check_options(request.provider_options, admin=caller.admin)
    if request.resume_run_id is not None and request.resume_session_id is not None:
        raise invalid("resumeSessionId", "give either resumeRunId or resumeSessionId")


def check_credentials(credentials: Mapping[str, str], where: str) -> None:
    """Names an engine's environment can hold and that are not ours. A refusal names the variable, never its value."""
    for name, value in credentials.items():
        _refuse_ours(where, name, value)


def _check_metadata(metadata: dict[str, Any]) -> None:
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False)  # as jsonb prints it, but for some numbers
    except ValueError:
        raise invalid("metadata", "a number that JSON has no word for") from None
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise invalid("metadata", f"at most {MAX_METADATA_BYTES} bytes")


def _check_env(env: Mapping[str, str], caller: Caller) -> None:
    for name, value in env.items():
        _refuse_ours("env", name, value)
        if name in CREDENTIAL_NAMES:
            raise invalid(f"env.{name}", "a credential is set by the app or on the executor, never by a request")
        if name.upper() in REDIRECTING_NAMES and not caller.admin:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"env.{name} may be set by an admin key only")


def _refuse_ours(where: str, name: str, value: str) -> None:
    if not may_be_set(name, value):
        raise invalid(f"{where}.{name[:64]}", "this variable cannot be set")


def check_options(options: Mapping[str, Any], *, admin: bool, where: str = "providerOptions") -> None:
    """What is ours among the provider options. The rest is the adapter's to judge."""
    for name in ADMIN_OPTIONS:
        if name in options and not admin:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"{where}.{name} may be set by an admin key only")
    for name, limit in LONGEST.items():
        value = options.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= limit):
            raise invalid(f"{where}.{name}", f"a whole number of milliseconds from 1 to {limit}")
    _check_schema(options.get("outputSchema"), f"{where}.outputSchema")
    if options.get("onExpiry", OnExpiry.FAIL) not in list(OnExpiry):
        raise invalid(f"{where}.onExpiry", "fail, deny or answer")
    answer = options.get("expiryAnswer", "-")
    if not isinstance(answer, str) or not answer.strip() or len(answer) > MAX_EXPIRY_ANSWER:
        raise invalid(f"{where}.expiryAnswer", f"a text of 1 to {MAX_EXPIRY_ANSWER} characters")


def expiry_answer(options: Mapping[str, Any], said: Mapping[str, Any], where: str = "providerOptions") -> str | None:
    """What a question is answered with that nobody answers in time; None where it is not answered.

    ``options``: all that the run has; ``said``: those that stand at ``where``, checked already. Raises ``invalid_request``.
    """
    answers = options.get("onExpiry") == OnExpiry.ANSWER
    if answers and "expiryAnswer" not in options:
        raise invalid(f"{where}.expiryAnswer", "onExpiry is answer: say what")
    if "expiryAnswer" in said and not answers:
        raise invalid(f"{where}.expiryAnswer", "nothing is answered unless onExpiry is answer")
    return options["expiryAnswer"] if answers else None


def _check_schema(schema: Any, where: str) -> None:
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise invalid(where, "a JSON Schema, as an object")
    try:
        Schema(cast(dict[str, Any], schema))
    except ValueError as error:
        raise invalid(where, str(error)) from error


def idempotency_key(key: str | None, body: str) -> IdempotencyKey | None:
    """The caller's ``Idempotency-Key`` with the hash of what it stands for; None without one. Raises ``invalid_request``."""
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise invalid("Idempotency-Key", f"1 to {MAX_KEY} printable characters")
    return IdempotencyKey(key, hashlib.sha256(body.encode()).digest())
