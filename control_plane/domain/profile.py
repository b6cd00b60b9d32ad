"""What a run takes from its execution profile, and who wins where request and profile both say something. Pure.

Everything but credentials is frozen into the run when it is created. Credentials are read again at each start: they can be
changed without touching a run, and no run holds a copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from control_plane.domain.timeouts import RUN_TIME
from shared.contracts.apps import RuntimeDefaults
from shared.contracts.runs import StartRun

# First that has a value wins; options are merged name by name. What nobody says, the settings and the manager's table do.
PRECEDENCE: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "provider": ("app", "request"),
    "model": ("app", "request"),
    "options": ("request", "app"),
    "environment": ("request",),
    "credentials": ("app",),
})  # fmt: skip


class Profile(BaseModel):
    """What an app lent to a run, as it was when the run was created."""

    model_config = ConfigDict(frozen=True)

    app_id: str
    timeout_ms: int | None = None
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])


def picked(field: str, **says: str | None) -> str | None:
    """The value of the first in ``PRECEDENCE[field]`` that has one."""
    return next((says[who] for who in PRECEDENCE[field] if says.get(who) is not None), None)


def merged_options(request: Mapping[str, Any], profile: Profile | None) -> dict[str, Any]:
    """The provider options a run has, by name."""
    says = {"request": request, "app": profile.provider_options if profile else {}}
    merged: dict[str, Any] = {}
    for who in reversed(PRECEDENCE["options"]):
        if any(says[who].get(name) is not None for name in RUN_TIME):
            merged = {name: value for name, value in merged.items() if name not in RUN_TIME}
        merged.update(says[who])
    return merged


def frozen(app_id: str, defaults: RuntimeDefaults) -> Profile:
    return Profile(app_id=app_id, timeout_ms=defaults.timeout_ms, provider_options=defaults.provider_options)


def with_profile(request: StartRun, profile: Profile | None) -> StartRun:
    """The request as its run lives it: the profile's options under its own."""
    return request.model_copy(update={"provider_options": merged_options(request.provider_options, profile)})
