"""Creating runs: every default resolved, every refusal made, then one row before anything else happens."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace

import structlog

from control_plane.domain.profile import Profile, frozen, merged_options, retry_policy
from control_plane.domain.run import NewRun, Resumable
from control_plane.domain.timeouts import INTERACTION_MS
from control_plane.runs.admit import admit, expiry_answer, idempotency_key
from control_plane.runs.interrupt import InterruptSession
from control_plane.storage.apps import AppStore
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.runs import RunStore
from shared.contracts.events import RunStatusChanged
from shared.contracts.interactions import OnExpiry
from shared.contracts.precedence import picked
from shared.contracts.providers import CLOSED, Provider, provider_named
from shared.contracts.runs import OnSessionBusy, RunStatus, StartRun
from shared.errors import ErrorCode, RunyardError, invalid
from shared.ids import NewId
from shared.web import Caller

log = structlog.get_logger("create")

QUEUE_RETRY_SECONDS = 5
_RETRY_OF = "retryOf"


@dataclass(frozen=True, slots=True)
class CreateRun:
    """``queue_limit``: how many runs may wait; ``default_provider``: for requests that name none; ``driven``: what can run."""

    runs: RunStore
    apps: AppStore
    breakers: BreakerStore
    interrupt: InterruptSession
    new_id: NewId
    default_provider: Provider
    driven: frozenset[Provider]
    queue_limit: int

    async def __call__(self, request: StartRun, caller: Caller, key: str | None = None, retry_of: str | None = None) -> str:
        """The id of a queued run, or of the one that the idempotency key has made before.

        ``retry_of`` comes to its metadata, and does not count against the limit of what a caller may give.

        Raises ``invalid_request``, ``payload_too_large``, ``permission_denied``, ``provider_unavailable``,
        ``idempotency_conflict``, ``session_busy``, ``queue_full``, and what an open breaker says (``auth_failed``,
        ``auth_missing``, ``quota_exceeded``); nothing is stored then.
        """
        admit(request, caller)
        if retry_of is not None:
            request = request.model_copy(update={"metadata": {**request.metadata, _RETRY_OF: retry_of}})
        body = json.dumps(request.model_dump(mode="json", by_alias=True, exclude_defaults=True), sort_keys=True)
        idempotency = idempotency_key(key, body)
        if idempotency is not None and (run_id := await self.runs.of_key(caller.app_id, idempotency)) is not None:
            return run_id
        run = await self._resolved(request, caller)
        await self._refuse_what_cannot_succeed(run)
        if await self.runs.queued(self.queue_limit) >= self.queue_limit:
            raise RunyardError(
                ErrorCode.QUEUE_FULL, f"{self.queue_limit} runs are waiting already", retry_after=QUEUE_RETRY_SECONDS
            )
        run_id = await self.runs.create(run, idempotency)
        if request.on_session_busy is OnSessionBusy.INTERRUPT:
            await self._interrupt(run_id)
        return run_id

    async def _interrupt(self, run_id: str) -> None:
        """The run stands: its caller is told so, whatever becomes of this. A sweeper asks as well."""
        try:
            await self.interrupt(run_id)
        except RunyardError as error:
            if error.code is not ErrorCode.STORAGE_UNAVAILABLE:
                raise
            log.warning("create.interrupt_left_to_the_sweeper", run_id=run_id, reason=error.detail)

    async def _refuse_what_cannot_succeed(self, run: NewRun) -> None:
        """Its credentials were refused again and again: the caller learns it now, not by a run that fails."""
        found = await self.breakers.one(run.lender, run.provider)
        if found is None or not found[0].refuses(found[1]):
            return
        breaker, now = found
        after = math.ceil((breaker.try_at - now).total_seconds()) if breaker.try_at else None
        raise RunyardError(breaker.code, f"provider {run.provider}: refused {breaker.said()}", retry_after=after)

    async def _resolved(self, request: StartRun, caller: Caller) -> NewRun:
        profile, asked, model = await self._asked(request, caller)
        earlier = await self._earlier(request, caller, asked)
        provider = asked or (Provider(earlier.provider) if earlier is not None else self.default_provider)
        if earlier is not None and earlier.provider != provider:
            raise invalid("provider", f"the session to go on with belongs to {earlier.provider}")
        if provider not in self.driven:
            why = CLOSED.get(provider, "this release cannot drive it")
            raise RunyardError(ErrorCode.PROVIDER_UNAVAILABLE, f"provider {provider}: {why}")
        run_id = self.new_id("run")
        session_id = request.session_id or _session_of(earlier, caller)
        options = merged_options(request.provider_options, profile)
        policy = retry_policy(request, profile)
        first = RunStatusChanged(status=RunStatus.QUEUED, reason="created")
        return NewRun(
            run_id=run_id,
            source="chat",
            source_ref=profile.app_id if profile else caller.app_id,
            session_id=session_id,
            app_id=caller.app_id,
            provider=provider,
            model=model,
            priority=request.priority,
            metadata=request.metadata,
            workspace_key=earlier.workspace_key if earlier else _workspace_key(run_id, session_id, caller.app_id),
            resume_session=request.resume_session_id or (earlier.engine_session if earlier else None),
            resumes=request.resume_run_id is not None or request.resume_session_id is not None,
            request=request.model_dump_json(by_alias=True, exclude_none=True),
            profile=profile.model_dump_json() if profile else None,
            first_event=first.wire_json(),
            interaction_ms=options.get("interactionTimeoutMs") or INTERACTION_MS,
            on_expiry=OnExpiry(options.get("onExpiry", OnExpiry.FAIL)),
            expiry_answer=expiry_answer(options, request.provider_options),
            max_attempts=policy.max_attempts,
            retry_after_side_effects=policy.after_side_effects,
            on_session_busy=request.on_session_busy,
            lender=(profile.app_id if profile else caller.app_id) or "",
        )

    async def _asked(self, request: StartRun, caller: Caller) -> tuple[Profile | None, Provider | None, str | None]:
        """The profile, and the provider and model that it or the request ask for."""
        asked = provider_named(request.provider) if request.provider is not None else None
        if request.execution_profile is None:
            return None, asked, request.model
        app = await self.apps.one(request.execution_profile)
        if app is None or not app.visible_to(caller):
            raise invalid("executionProfile", "there is no such app")
        if not app.usable_by(caller):
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"executionProfile: {app.app_id} is not yours to use, or disabled")
        defaults = app.defaults
        for name in request.env:
            if name in app.credential_names:
                raise invalid(f"env.{name}", "the profile's credentials cannot be replaced by a request")
        provider = picked("provider", app=defaults.provider, request=asked)
        model = picked("model", app=defaults.model, request=request.model)
        return frozen(app.app_id, defaults), Provider(provider) if provider else None, model

    async def _earlier(self, request: StartRun, caller: Caller, asked: Provider | None) -> Resumable | None:
        """The run whose engine session and workspace this one goes on with."""
        if request.resume_run_id is not None:
            earlier = await self.runs.resumable(request.resume_run_id)
            if earlier is None or not caller.may_see(earlier.app_id):
                raise invalid("resumeRunId", "there is no such run")
            if earlier.engine_session is None:
                raise invalid("resumeRunId", "that run left no engine session to go on with")
            return earlier
        if request.resume_session_id is not None:
            earlier = await self.runs.by_engine_session(request.resume_session_id, caller.app_id)
            if earlier is None or not caller.may_see(earlier.app_id):
                raise invalid("resumeSessionId", "no run has left such a session")
            return earlier
        if request.session_id is not None:
            tail = await self.runs.session_tail(request.session_id, caller.app_id)
            fits = tail is not None and asked in (None, tail.provider)
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
        owner = replace(caller, app_id=row.app_id)
        given = {name: value for name, value in request.metadata.items() if name != _RETRY_OF}
        return await self.create(request.model_copy(update={"metadata": given}), owner, key, run_id)


def _session_of(earlier: Resumable | None, caller: Caller) -> str | None:
    """Whoever goes on with a run of its own goes on with its session; a session of another app stays that app's."""
    return earlier.session_id if earlier is not None and earlier.app_id == caller.app_id else None


def _workspace_key(run_id: str, session_id: str | None, app_id: str | None) -> str:
    """One workspace per session of an app; a run without a session has its own."""
    if session_id is None:
        return run_id
    return "ses_" + hashlib.sha256(f"{app_id or ''}\0{session_id}".encode()).hexdigest()[:32]
