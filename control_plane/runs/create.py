"""Creating runs: every default resolved, every refusal made, then one row before anything else happens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from control_plane.domain.run import IdempotencyKey, NewRun, Resumable
from control_plane.storage.runs import RunStore
from shared.contracts.events import RunStatusChanged
from shared.contracts.interactions import OnExpiry
from shared.contracts.providers import CREDENTIAL_NAMES, Provider, provider_named
from shared.contracts.runs import MAX_METADATA_BYTES, MAX_PROMPT_BYTES, RunStatus, StartRun
from shared.errors import ErrorCode, RunyardError, invalid
from shared.ids import NewId
from shared.web import Caller

QUEUE_RETRY_SECONDS = 5
MAX_KEY = 255
INTERACTION_MS = 24 * 3600 * 1000
# Only who may spend an operator's credentials may send them elsewhere (design §4.4).
_ADMIN_OPTIONS = ("baseUrl", "wireApi")
_NUMBERS = {"timeoutMs": 86_400_000, "runTimeoutMs": 86_400_000, "idleTimeoutMs": 86_400_000, "interactionTimeoutMs": 604_800_000}


@dataclass(frozen=True, slots=True)
class CreateRun:
    """``queue_limit``: how many runs may wait; ``default_provider``: for requests that name none; ``driven``: what can run."""

    runs: RunStore
    new_id: NewId
    default_provider: Provider
    driven: frozenset[Provider]
    queue_limit: int

    async def __call__(self, request: StartRun, caller: Caller, key: str | None = None) -> str:
        """The id of a queued run, or of the one that the idempotency key has made before.

        Raises ``invalid_request``, ``payload_too_large``, ``permission_denied``, ``provider_unavailable``,
        ``idempotency_conflict`` and ``queue_full``; nothing is stored then.
        """
        _check(request, caller)
        idempotency = _idempotency(key, request)
        if idempotency is not None and (run_id := await self.runs.of_key(caller.app_id, idempotency)) is not None:
            return run_id
        run = await self._resolved(request, caller)
        if await self.runs.queued(self.queue_limit) >= self.queue_limit:
            raise RunyardError(
                ErrorCode.QUEUE_FULL, f"{self.queue_limit} runs are waiting already", retry_after=QUEUE_RETRY_SECONDS
            )
        return await self.runs.create(run, idempotency)

    async def _resolved(self, request: StartRun, caller: Caller) -> NewRun:
        provider = provider_named(request.provider) if request.provider is not None else self.default_provider
        earlier = await self._earlier(request, caller)
        if earlier is not None and request.provider is None:
            provider = Provider(earlier.provider)
        if earlier is not None and earlier.provider != provider:
            raise invalid("provider", f"the session to go on with belongs to {earlier.provider}")
        if provider not in self.driven:
            raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, f"provider: this release cannot drive {provider}")
        run_id = self.new_id("run")
        session_id = request.session_id or (earlier.session_id if earlier else None)
        first = RunStatusChanged(status=RunStatus.QUEUED, reason="created")
        return NewRun(
            run_id=run_id,
            source="chat",
            source_ref=caller.app_id,
            session_id=session_id,
            app_id=caller.app_id,
            provider=provider,
            model=request.model,
            priority=request.priority,
            metadata=request.metadata,
            workspace_key=earlier.workspace_key if earlier else _workspace_key(run_id, session_id, caller.app_id),
            resume_session=request.resume_session_id or (earlier.engine_session if earlier else None),
            request=request.model_dump_json(by_alias=True, exclude_none=True),
            first_event=first.wire_json(),
            interaction_ms=request.provider_options.get("interactionTimeoutMs", INTERACTION_MS),
            on_expiry=OnExpiry(request.provider_options.get("onExpiry", OnExpiry.FAIL)),
        )

    async def _earlier(self, request: StartRun, caller: Caller) -> Resumable | None:
        """The run whose engine session and workspace this one goes on with."""
        if request.resume_run_id is not None:
            earlier = await self.runs.resumable(request.resume_run_id)
            if earlier is None or not caller.may_see(earlier.app_id):
                raise invalid("resumeRunId", "there is no such run")
            if earlier.engine_session is None:
                raise invalid("resumeRunId", "that run left no engine session to go on with")
            return earlier
        if request.resume_session_id is not None:
            earlier = await self.runs.by_engine_session(request.resume_session_id)
            if earlier is None or not caller.may_see(earlier.app_id):
                raise invalid("resumeSessionId", "no run has left such a session")
            return earlier
        if request.session_id is not None:
            tail = await self.runs.session_tail(request.session_id, caller.app_id)
            fits = tail is not None and (request.provider is None or provider_named(request.provider) == tail.provider)
            return tail if fits else None
        return None


@dataclass(frozen=True, slots=True)
class RetryRun:
    """The same request again, as a new run of the same session."""

    runs: RunStore
    create: CreateRun

    async def __call__(self, run_id: str, caller: Caller, key: str | None = None) -> str:
        """Raises ``not_found``, and ``conflict`` while the run is not over."""
        row = await self.runs.snapshot(run_id)
        if row is None or not caller.may_see(row.app_id):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no run {run_id}")
        if row.finished_at is None:
            raise RunyardError(ErrorCode.CONFLICT, f"the run is {row.status}; only a finished run can be tried again")
        request = StartRun.model_validate_json((await self.runs.driven(run_id)).request)
        owner = Caller(app_id=row.app_id, admin=caller.admin, key_id=caller.key_id)
        return await self.create(request.model_copy(update={"metadata": {**request.metadata, "retryOf": run_id}}), owner, key)


def _workspace_key(run_id: str, session_id: str | None, app_id: str | None) -> str:
    """One workspace per session of an app; a run without a session has its own."""
    if session_id is None:
        return run_id
    return "ses_" + hashlib.sha256(f"{app_id or ''}\0{session_id}".encode()).hexdigest()[:32]


def _idempotency(key: str | None, request: StartRun) -> IdempotencyKey | None:
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise invalid("Idempotency-Key", f"1 to {MAX_KEY} printable characters")
    body = json.dumps(request.model_dump(mode="json", by_alias=True), sort_keys=True)
    return IdempotencyKey(key, hashlib.sha256(body.encode()).digest())


def _check(request: StartRun, caller: Caller) -> None:
    """Refusals that no type can express."""
    prompt_bytes = sum(len(each.content.encode()) for each in request.conversation())
    if prompt_bytes > MAX_PROMPT_BYTES:
        where = "prompt" if request.prompt is not None else "messages"
        raise RunyardError(ErrorCode.PAYLOAD_TOO_LARGE, f"{where}: {prompt_bytes} bytes are more than {MAX_PROMPT_BYTES}")
    if any("\0" in each.content for each in request.conversation()):
        raise invalid("prompt", "a NUL character cannot be passed on")
    _check_metadata(request.metadata)
    _check_env(request.env)
    _check_options(request.provider_options, caller)
    if request.execution_profile is not None:
        raise invalid("executionProfile", "there is no such app")
    if request.resume_run_id is not None and request.resume_session_id is not None:
        raise invalid("resumeSessionId", "give either resumeRunId or resumeSessionId")


def _check_metadata(metadata: dict[str, Any]) -> None:
    try:
        text = json.dumps(metadata, allow_nan=False)
    except ValueError:
        raise invalid("metadata", "a number that JSON has no word for") from None
    if len(text.encode()) > MAX_METADATA_BYTES // 2:  # Postgres prints jsonb with spaces; half leaves room for them
        raise invalid("metadata", f"at most {MAX_METADATA_BYTES // 2} bytes")
    if "\\u0000" in text:
        raise invalid("metadata", "a NUL character cannot be stored")


def _check_env(env: dict[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise invalid(f"env.{name[:64]}", "not a variable an environment can hold")
        if name.startswith("RUNYARD_"):
            raise invalid(f"env.{name[:64]}", "names that begin with RUNYARD_ are ours")
        if name in CREDENTIAL_NAMES:
            raise invalid(f"env.{name}", "a credential is set by the app or on the executor, never by a request")


def _check_options(options: dict[str, Any], caller: Caller) -> None:
    for name in _ADMIN_OPTIONS:
        if name in options and not caller.admin:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"providerOptions.{name} may be set by an admin key only")
    for name, limit in _NUMBERS.items():
        value = options.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= limit):
            raise invalid(f"providerOptions.{name}", f"a whole number of milliseconds from 1 to {limit}")
    if not isinstance(options.get("outputSchema", {}), dict):
        raise invalid("providerOptions.outputSchema", "a JSON Schema, as an object")
    if options.get("onExpiry", OnExpiry.FAIL) not in (OnExpiry.FAIL, OnExpiry.DENY):
        raise invalid("providerOptions.onExpiry", "fail or deny")
