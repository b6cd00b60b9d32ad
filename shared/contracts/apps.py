"""Apps: registered callers, and the runtime defaults that a run takes when it names one as its execution profile."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from shared.contracts.environment import CredentialEnv
from shared.contracts.providers import ProviderName
from shared.contracts.retries import RetryPolicy
from shared.contracts.wire import WHOLE, Request, Wire

MAX_DAYS = 36_500
AppId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class VisibilityRule(Request):
    """Who sees an app: everybody, or one user."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [
        {"properties": {"scope": {"const": "user"}, "userId": {"type": "string"}}, "required": ["userId"]},
        {"properties": {"scope": {"const": "all"}, "userId": {"type": "null"}}},
    ]})  # fmt: skip

    scope: Literal["all", "user"]
    user_id: str | None = Field(default=None, min_length=1, max_length=128)

    @model_validator(mode="after")
    def _names_a_user(self) -> VisibilityRule:
        if (self.scope == "user") != (self.user_id is not None):
            raise ValueError("the scope user needs a userId, and no other takes one")
        return self


class AppMember(Request):
    user_id: str = Field(min_length=1, max_length=128)
    can_use: bool = True


class RuntimeDefaults(Request):
    """What a run takes from its execution profile. Credential values go in here and never come out."""

    provider: ProviderName | None = None
    model: str | None = Field(default=None, min_length=1, max_length=256)
    timeout_ms: Annotated[int, Field(ge=1, le=86_400_000), WHOLE] | None = Field(
        default=None, description="Milliseconds a run may work."
    )
    credential_env: CredentialEnv = Field(default_factory=dict[str, str], max_length=64)
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any], max_length=64)
    retry: RetryPolicy | None = Field(default=None, description="Further attempts at its runs, should one fail.")


class Retention(Request):
    """How long what its finished runs leave is kept. What is left out is the operator's setting; 0 is for ever.

    Nothing outlives what it belongs to: output goes no later than events, and these no later than the run.
    """

    output_days: Annotated[int, Field(ge=0, le=MAX_DAYS), WHOLE] | None = Field(
        default=None, description="Days from a run's end to the end of its engines' raw output."
    )
    events_days: Annotated[int, Field(ge=0, le=MAX_DAYS), WHOLE] | None = Field(
        default=None, description="To the end of its events but the last; readers then get one `stream.gap`."
    )
    runs_days: Annotated[int, Field(ge=0, le=MAX_DAYS), WHOLE] | None = Field(
        default=None, description="To the end of the run itself and, with the last run of a session, of its workspace."
    )
    max_bytes: Annotated[int, Field(ge=0, le=2**53), WHOLE] | None = Field(
        default=None, description="Bytes of output and events of all its finished runs; beyond it the oldest go, output first."
    )


class RegisterApp(Request):
    """``POST /api/apps/register``: makes the app, or replaces what it was."""

    app_id: AppId
    name: str = Field(min_length=1, max_length=128)
    enabled: bool = True
    visibility_rules: list[VisibilityRule] = Field(default_factory=list[VisibilityRule], max_length=100)
    members: list[AppMember] = Field(default_factory=list[AppMember], max_length=1000)
    runtime_defaults: RuntimeDefaults = Field(default_factory=RuntimeDefaults)
    retention: Retention | None = None


class ShownDefaults(Wire):
    provider: str | None = None
    model: str | None = None
    timeout_ms: int | None = None
    credential_env_keys: list[str] = Field(description="Names only.")
    provider_options: dict[str, Any] = Field(default_factory=dict[str, Any])
    retry: RetryPolicy | None = None


class App(Wire):
    """An app as a caller sees it. Rules and members are shown to an admin key and to the app's own."""

    app_id: str
    name: str
    enabled: bool
    can_use: bool = Field(description="Whether this caller may name it as an execution profile.")
    visibility_rules: list[VisibilityRule] | None = None
    members: list[AppMember] | None = None
    runtime_defaults: ShownDefaults
    retention: Retention | None = Field(default=None, description="What it says otherwise than the operator's settings.")
    created_at: datetime
    updated_at: datetime


class AppList(Wire):
    items: list[App]
    next_cursor: str | None = None


class NewKey(Request):
    app_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="None: an admin key.")
    name: str = Field(min_length=1, max_length=128)
    scopes: list[Literal["act-as"]] = Field(
        default_factory=list[Literal["act-as"]], max_length=16, description="`act-as`: `X-User-Id` names the user it speaks for."
    )


class KeyMade(Wire):
    key_id: str
    key: str = Field(description="Shown once.")


class Key(Wire):
    """A key as operators see it: never the key itself."""

    key_id: str
    app_id: str | None = Field(default=None, description="Null: an admin key.")
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None = Field(default=None, description="From then on it opens nothing.")


class KeyList(Wire):
    items: list[Key]
    next_cursor: str | None = None
