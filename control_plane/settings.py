"""The control plane's settings, from the environment. Only ``app`` and ``__main__`` read them."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr

from shared.contracts.apps import MAX_DAYS
from shared.contracts.providers import Provider, provider_named
from shared.errors import RunyardError
from shared.settings import ServiceSettings, UrlList, refuse_open_door


def _provider(name: str) -> str:
    try:
        return provider_named(name)
    except RunyardError as error:
        raise ValueError(error.detail) from None


class Settings(ServiceSettings):
    database_url: SecretStr = Field(validation_alias="DATABASE_URL", description="PostgreSQL 15 or newer.")
    database_password: SecretStr | None = Field(
        default=None, validation_alias="DATABASE_PASSWORD", description="For a `DATABASE_URL` that names none."
    )
    host: str = Field(default="127.0.0.1", validation_alias="CONTROL_PLANE_HOST", description="The address it listens at.")
    port: int = Field(default=3000, ge=0, le=65535, validation_alias="CONTROL_PLANE_PORT", description="The port it listens at.")
    manager_urls: UrlList = Field(
        default=["http://127.0.0.1:3010"], min_length=1, validation_alias="EXECUTOR_MANAGER_URLS",
        description="Comma-separated; any of them will do.",
    )  # fmt: skip
    admin_key: SecretStr | None = Field(
        default=None, validation_alias="RUNYARD_ADMIN_KEY", description="The operator's key; other keys are made with it."
    )
    default_provider: Annotated[str, AfterValidator(_provider)] = Field(
        default=Provider.CODEX_APP_SERVER, validation_alias="RUNYARD_DEFAULT_PROVIDER",
        description="For requests that name no provider.",
    )  # fmt: skip
    provider_mode: Literal["real", "scripted"] = Field(
        default="real", validation_alias="CONTROL_PLANE_PROVIDER_MODE",
        description="Has its effect on the executors: set it there too.",
    )  # fmt: skip
    queue_limit: int = Field(
        default=1000, ge=1, validation_alias="RUNYARD_QUEUE_LIMIT",
        description="How many runs may wait; the next one is refused with `queue_full`.",
    )  # fmt: skip
    queue_seconds: int = Field(
        default=86_400, ge=1, validation_alias="RUNYARD_QUEUE_SECONDS",
        description="How long a run may wait for an executor before it ends in `timeout`.",
    )  # fmt: skip
    ageing_seconds: float = Field(
        default=60, gt=0, validation_alias="RUNYARD_AGEING_SECONDS",
        description="A waiting run rises by one priority in so much time, by 20 in all.",
    )  # fmt: skip
    park_seconds: float = Field(
        default=600, ge=0, validation_alias="RUNYARD_PARK_SECONDS",
        description="A run that has waited for a person for so long gives its process and slot back until the reply; 0: never.",
    )  # fmt: skip
    app_runs: str = Field(
        default="", validation_alias="RUNYARD_APP_RUNS",
        description="How many runs of one app may live at once: `shop=20,*=5`, `*` being any other; the rest wait. Empty: any.",
    )  # fmt: skip
    provider_runs: str = Field(
        default="", validation_alias="RUNYARD_PROVIDER_RUNS",
        description="Likewise of one provider: `codex-app-server=10`. The same in all control planes.",
    )  # fmt: skip
    drives: int = Field(default=500, ge=1, validation_alias="RUNYARD_DRIVES", description="Runs driven by one replica.")
    pool_size: int = Field(
        default=10, ge=2, validation_alias="RUNYARD_POOL_SIZE",
        description="Connections to Postgres; leases and hints have one more each, the log of events three.",
    )  # fmt: skip

    keep_output_days: int = Field(
        default=0, ge=0, le=MAX_DAYS, validation_alias="RUNYARD_KEEP_OUTPUT_DAYS",
        description="Days from a run's end until its engines' raw output is deleted; 0: never.",
    )  # fmt: skip
    keep_events_days: int = Field(
        default=0, ge=0, le=MAX_DAYS, validation_alias="RUNYARD_KEEP_EVENTS_DAYS",
        description="Until its events but the last one are, too; 0: never.",
    )  # fmt: skip
    keep_runs_days: int = Field(
        default=0, ge=0, le=MAX_DAYS, validation_alias="RUNYARD_KEEP_RUNS_DAYS",
        description="Until the run is, and with the last run of a session its workspace and snapshot; 0: never.",
    )  # fmt: skip
    keep_bytes: int = Field(
        default=0, ge=0, validation_alias="RUNYARD_KEEP_BYTES",
        description="Bytes of output and events that an app's finished runs may hold together; beyond it the oldest go, output "
                    "first. 0: any number.",
    )  # fmt: skip
    retention_seconds: float = Field(
        default=300, ge=0.1, validation_alias="RUNYARD_RETENTION_SECONDS",
        description="How often a replica looks for what is to be deleted.",
    )  # fmt: skip

    def dsn(self) -> str:
        """Where the database is, with the password: never to be shown."""
        url = self.database_url.get_secret_value()
        if self.database_password is None:
            return url
        return f"{url}{'&' if '?' in url else '?'}password={quote(self.database_password.get_secret_value(), safe='')}"

    def refuse_what_does_not_fit(self) -> None:
        """Raises ``ValueError`` for settings that are right one by one and wrong together."""
        refuse_open_door(self.auth, self.host)
        self.token()
