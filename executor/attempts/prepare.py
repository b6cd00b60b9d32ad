"""From a start request to a plan that can be run: adapter, workspace, environment, conversation. Starts nothing.

Refuses, as ``RunyardError``, everything that can be known before a process exists.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_urlsafe

import structlog

from executor.adapters.base import Adapter, Conversation, File, Outcome, StartRequest
from executor.attempts.answers import Fit, Judging
from executor.attempts.plan import Plan
from executor.attempts.prices import Prices
from executor.engines.command_profiles import NONE, CommandProfile, CommandProfiles
from executor.engines.credentials import CredentialStore, SignIn
from executor.engines.environment import engine_environment, refuse_reserved
from executor.engines.readiness import Readiness
from executor.events.redaction import secrets_in
from executor.processes.cgroups import Cgroup, Cgroups
from executor.processes.containment import Containment
from executor.processes.engine_process import Launch
from executor.state_dir import MARK, RUN_MARK
from executor.workspaces.workspace import Workspace
from shared.contracts.events import AttemptOutcome, AttemptStarted
from shared.contracts.precedence import merged, picked
from shared.contracts.provider_runs import StartProviderRun
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError

DOOR_KEY_BYTES = 24
# An engine that the kernel ended looks like this to its conversation.
_CUT_SHORT = (ErrorCode.ENGINE_EXIT_NONZERO, ErrorCode.ENGINE_NO_OUTPUT, ErrorCode.ENGINE_PROTOCOL_ERROR)

log = structlog.get_logger("prepare")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this executor is. ``instance`` is new in every life, ``mark`` the same."""

    executor_id: str
    instance: str
    mark: str


@dataclass(frozen=True, slots=True)
class Prepare:
    adapters: Mapping[Provider, Adapter]
    credential_names: frozenset[str]
    store: CredentialStore
    readiness: Readiness
    workspaces: Path
    identity: Identity
    output_quota_bytes: int
    sandbox: str
    containment: Containment
    profiles: CommandProfiles
    prices: Prices
    cgroups: Cgroups
    judging: Judging

    def __call__(self, request: StartProviderRun) -> tuple[Plan, Workspace]:
        """Raises ``RunyardError``; the workspace exists and holds the adapter's files afterwards."""
        adapter = self._adapter(request)
        executable = self.readiness.executable(request.provider)
        if executable is None:
            raise RunyardError(ErrorCode.ENGINE_NOT_FOUND, f"{request.provider} is not installed here")
        refuse_reserved(request.env, self.credential_names)
        run_mark = f"{request.run_id}.{request.attempt}"
        fit = self.judging.fit_for(request.output_schema, run_mark)
        sign_in = self.store.sign_in(adapter.credentials, request.credential_env)
        workspace = Workspace.at(self.workspaces, request.workspace.key)
        workspace.make()
        profile = self.profiles.get(request.provider, NONE)
        asked = _with_profile(request, profile)
        door_key = token_urlsafe(DOOR_KEY_BYTES)
        conversation = _conversation(adapter, asked, executable, workspace, sign_in, door_key)
        command = conversation.command
        workspace.write(File("home", path, content.encode()) for path, content in sign_in.files.items())
        workspace.write(command.files)
        places = {"HOME": str(workspace.home), "TMPDIR": str(workspace.tmp)}
        marks = {MARK: self.identity.mark, RUN_MARK: run_mark}
        env = engine_environment(os.environ, places, request.env, command.env, sign_in.env, marks)
        bare = Launch((*command.argv, *profile.arguments), env, str(workspace.work))
        cgroup = self.cgroups.of(run_mark)
        plan = Plan(
            conversation=conversation,
            launch=_placed(self.containment.wrapped(bare, workspace), cgroup),
            run_mark=run_mark,
            secrets=secrets_in((*sign_in.values(), door_key)),
            passing=secrets_in((door_key,)),
            started=self._started(request),
            output_quota_bytes=self.output_quota_bytes,
            fit=self._fit(fit, cgroup, asked.model),
        )
        return plan, workspace

    def _adapter(self, request: StartProviderRun) -> Adapter:
        adapter = self.adapters.get(request.provider)
        if adapter is None:
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"this executor has no adapter for {request.provider}")
        can = adapter.capabilities
        if request.require_human_loop and not (can.permissions or can.questions):
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{request.provider} cannot ask a person")
        if request.resume_session_id is not None and not can.resume:
            raise RunyardError(ErrorCode.CAPABILITY_UNAVAILABLE, f"{request.provider} cannot resume a session")
        return adapter

    def _fit(self, fit: Fit, cgroup: Cgroup | None, model: str | None) -> Fit:
        async def fitting(outcome: Outcome, hurry: asyncio.Event) -> Outcome:
            return self.prices.estimated(memory_judged(await fit(outcome, hurry), cgroup), model)

        return fitting

    def _started(self, request: StartProviderRun) -> AttemptStarted:
        return AttemptStarted(
            executor_id=self.identity.executor_id,
            instance=self.identity.instance,
            provider=request.provider,
            engine_version=self.readiness.version(request.provider),
            sandbox="+".join(filter(None, (self.containment.name, self.sandbox, *self.cgroups.facts))),
            timeouts=request.timeouts,
            resumed=request.resume_session_id is not None,
        )


def _placed(what: Launch, cgroup: Cgroup | None) -> Launch:
    return what if cgroup is None else replace(what, argv=cgroup.entered(tuple(what.argv)), cgroup=cgroup)


def memory_judged(outcome: Outcome, cgroup: Cgroup | None) -> Outcome:
    """``engine_oom`` for an engine that came to no end of its own while the kernel ended a process of its run for its memory."""
    kills = cgroup.oom_kills if cgroup is not None else 0
    if not kills or outcome.outcome is not AttemptOutcome.ERROR or outcome.error_code not in _CUT_SHORT:
        return outcome
    bound = cgroup.memory_bytes if cgroup is not None else None
    said = f"the run passed its {bound} bytes of memory" if bound is not None else "the machine's memory ran out"
    told = f"{said} (memory.events: oom_kill {kills}); {outcome.error_message}"
    return replace(outcome, error_code=ErrorCode.ENGINE_OOM, error_message=told)


def _with_profile(request: StartProviderRun, profile: CommandProfile) -> StartProviderRun:
    options = merged("options", request=request.provider_options, command_profile=profile.options)
    model = picked("model", request=request.model, command_profile=profile.model)
    return request.model_copy(update={"provider_options": options, "model": model})


def _conversation(
    adapter: Adapter, request: StartProviderRun, executable: str, workspace: Workspace, sign_in: SignIn, door_key: str
) -> Conversation:
    asked = StartRequest(
        run_id=request.run_id,
        attempt=request.attempt,
        executable=executable,
        home=str(workspace.home),
        workspace=str(workspace.work),
        messages=request.messages,
        model=request.model,
        engine_mode=request.engine_mode,
        tools=request.tools,
        provider_options=request.provider_options,
        credential_env=sign_in.env,
        credential_files=sign_in.files,
        output_schema=request.output_schema,
        require_human_loop=request.require_human_loop,
        door_key=door_key,
    )
    try:
        if request.resume_session_id is not None:
            return adapter.resume(asked, request.resume_session_id)
        return adapter.start(asked)
    except RunyardError:
        raise
    except Exception as error:  # the border to an adapter: its failure is one attempt's, never the service's
        log.error("adapter.failed", provider=request.provider, error=type(error).__name__, exc_info=error)
        raise RunyardError(ErrorCode.INTERNAL, f"the adapter of {request.provider} failed: {type(error).__name__}") from error
