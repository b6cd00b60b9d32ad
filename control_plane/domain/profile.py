"""What a run takes from its execution profile, and who wins where request and profile both say something. Pure.

Everything but credentials is frozen into the run when it is created. Credentials are read again at each start: they can be
changed without touching a run, and no run holds a copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from control_plane.domain.retrying import Policy
from shared.contracts.apps import RuntimeDefaults
from shared.contracts.precedence import merged, picked
from shared.contracts.retries import RetryPolicy
from shared.contracts.runs import StartRun


class Profile(BaseModel):
    """What an app lent to a run, as it was when the run was created."""

    model_config = ConfigDict(frozen=True)

    app_id: str
    timeout_ms: int | None = None
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])
    retry: RetryPolicy = Field(default_factory=RetryPolicy)


def merged_options(request: Mapping[str, Any], profile: Profile | None) -> dict[str, Any]:
    """The provider options a run has, by name. (A profile's time is a field of its own: no option can say it twice.)"""
    return merged("options", request=request, app=profile.provider_options if profile else {})


def frozen(app_id: str, defaults: RuntimeDefaults) -> Profile:
    retry = defaults.retry or RetryPolicy()
    return Profile(app_id=app_id, timeout_ms=defaults.timeout_ms, provider_options=defaults.provider_options, retry=retry)


def retry_policy(request: StartRun, profile: Profile | None) -> Policy:
    """What request and profile allow together. Doing something twice needs the leave of everybody who says a word on it."""
    asked, lent = request.retry or RetryPolicy(), profile.retry if profile else RetryPolicy()
    said = [word for word in (asked.after_side_effects, lent.after_side_effects) if word is not None]
    return Policy(picked("retry.maxAttempts", request=asked.max_attempts, app=lent.max_attempts), bool(said) and all(said))


def with_profile(request: StartRun, profile: Profile | None) -> StartRun:
    """The request as its run lives it: the profile's options under its own."""
    return request.model_copy(update={"provider_options": merged_options(request.provider_options, profile)})
