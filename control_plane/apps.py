"""Apps: registering them, and showing each caller what it may know of them. Never a credential's value."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.domain.app import RegisteredApp
from control_plane.domain.plain_text import refuse_nul
from control_plane.runs.admit import check_credentials, check_options, expiry_answer
from control_plane.storage.apps import AppStore
from control_plane.storage.breakers import BreakerStore
from shared.contracts.apps import App, AppList, RegisterApp, RuntimeDefaults, ShownDefaults
from shared.contracts.providers import provider_named
from shared.errors import ErrorCode, RunyardError, invalid
from shared.web import Caller

_WHERE = "runtimeDefaults"
# One truth for a profile's time: its own field, which has its own place in the precedence.
_NOT_AS_OPTIONS = ("timeoutMs", "runTimeoutMs")
_APPS_A_LOOK = 100


@dataclass(frozen=True, slots=True)
class KeepApp:
    """Make an app or replace what it was: credentials too, whole."""

    apps: AppStore
    breakers: BreakerStore

    async def __call__(self, request: RegisterApp, caller: Caller) -> App:
        """Raises ``permission_denied`` unless an admin asks, and ``invalid_request`` for defaults no run could take."""
        if not caller.admin:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, "only an admin key registers apps")
        refuse_nul(request)
        defaults = _checked(request.runtime_defaults)
        await self.apps.register(request.model_copy(update={"runtime_defaults": defaults}))
        await self.breakers.forget(request.app_id)
        kept = await self.apps.one(request.app_id)
        assert kept is not None  # nothing deletes an app
        return view(kept, caller)


@dataclass(frozen=True, slots=True)
class ReadApps:
    apps: AppStore

    async def one(self, app_id: str, caller: Caller) -> App:
        """Raises ``not_found`` for an app the caller does not see."""
        app = await self.apps.one(app_id)
        if app is None or not app.visible_to(caller):
            raise RunyardError(ErrorCode.NOT_FOUND, f"no app {app_id[:64]}")
        return view(app, caller)

    async def page(self, caller: Caller, after: str, limit: int) -> AppList:
        """By id. An app that is hidden from the caller counts for nothing, not even for where the next page begins."""
        visible: list[RegisteredApp] = []
        while len(visible) <= limit and (found := await self.apps.page(after, _APPS_A_LOOK)):
            visible += [app for app in found if app.visible_to(caller)]
            after = found[-1].app_id
        items = visible[:limit]
        following = items[-1].app_id if len(visible) > limit else None
        return AppList(items=[view(app, caller) for app in items], next_cursor=following)


def view(app: RegisteredApp, caller: Caller) -> App:
    inside = app.is_run_by(caller)
    return App(
        app_id=app.app_id,
        name=app.name,
        enabled=app.enabled,
        can_use=app.usable_by(caller),
        visibility_rules=app.visibility_rules if inside else None,
        members=app.members if inside else None,
        runtime_defaults=ShownDefaults(
            provider=app.defaults.provider,
            model=app.defaults.model,
            timeout_ms=app.defaults.timeout_ms,
            credential_env_keys=app.credential_names,
            provider_options=app.defaults.provider_options if inside else {},
            retry=app.defaults.retry,
        ),
        retention=app.retention if inside else None,
        created_at=app.created_at,
        updated_at=app.updated_at,
    )


def _checked(defaults: RuntimeDefaults) -> RuntimeDefaults:
    """The defaults under today's names."""
    check_credentials(defaults.credential_env, f"{_WHERE}.credentialEnv")
    check_options(defaults.provider_options, admin=True, where=f"{_WHERE}.providerOptions")
    expiry_answer(defaults.provider_options, {}, f"{_WHERE}.providerOptions")
    for name in _NOT_AS_OPTIONS:
        if name in defaults.provider_options:
            raise invalid(f"{_WHERE}.providerOptions.{name}", "an app's time is runtimeDefaults.timeoutMs")
    if defaults.provider is None:
        return defaults
    return defaults.model_copy(update={"provider": provider_named(defaults.provider, f"{_WHERE}.provider").value})
