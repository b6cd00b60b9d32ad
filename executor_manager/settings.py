"""What the executor manager is told by its environment. Read by ``app`` and ``__main__`` only."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.settings import ServiceSettings, UrlList


class Settings(ServiceSettings):
    host: str = Field(default="127.0.0.1", validation_alias="EXECUTOR_MANAGER_HOST", description="The address it listens at.")
    port: int = Field(
        default=3010, ge=0, le=65535, validation_alias="EXECUTOR_MANAGER_PORT", description="The port it listens at."
    )
    executors: UrlList = Field(
        default_factory=list[str],
        validation_alias="EXECUTOR_MANAGER_EXECUTORS",
        description="Base URLs, comma-separated; a host name with several addresses is several executors.",
    )
    run_timeout_ms: int = Field(
        default=1_800_000, ge=1, le=86_400_000, validation_alias="EXECUTOR_RUN_TIMEOUT_MS",
        description="How long a run may work where neither the request nor the table of timeouts says so.",
    )  # fmt: skip
    timeout_templates: Path | None = Field(
        default=None, validation_alias="EXECUTOR_RUN_TIMEOUT_TEMPLATE_FILE",
        description="A TOML file in the form of `executor_manager/timeouts.toml`; a provider it names replaces the "
                    "shipped one whole, and a mistake in it stops the manager at its start.",
    )  # fmt: skip
