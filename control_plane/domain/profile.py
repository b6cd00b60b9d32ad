"""What a run takes from its execution profile, and who wins where request and profile both say something. Pure.

Everything but credentials is frozen into the run when it is created. Credentials are read again at each start: they can be
changed without touching a run, and no run holds a copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.apps import RuntimeDefaults
from shared.contracts.precedence import merged
from shared.contracts.runs import StartRun


class Profile(BaseModel):
    """What an app lent to a run, as it was when the run was created."""

    model_config = ConfigDict(frozen=True)

    app_id: str
    timeout_ms: int | None = None
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])


def merged_options(request: Mapping[str, Any], profile: Profile | None) -> dict[str, Any]:
    """The provider options a run has, by name. (A profile's time is a field of its own: no option can say it twice.)"""
    return merged("options", request=request, app=profile.provider_options if profile else {})


def frozen(app_id: str, defaults: RuntimeDefaults) -> Profile:
    return Profile(app_id=app_id, timeout_ms=defaults.timeout_ms, provider_options=defaults.provider_options)


def with_profile(request: StartRun, profile: Profile | None) -> StartRun:
    """The request as its run lives it: the profile's options under its own."""
    return request.model_copy(update={"provider_options": merged_options(request.provider_options, profile)})
