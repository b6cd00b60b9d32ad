"""What every service's settings have in common. Only the services' own app modules read settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


UrlList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""A comma-separated list in the environment."""


class ServiceSettings(BaseSettings):
    """Environment variables shared by all services."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    service_token: SecretStr | None = Field(
        default=None, validation_alias="RUNYARD_SERVICE_TOKEN",
        description="What the services show each other; the same for all, required while `RUNYARD_AUTH` is on.",
    )  # fmt: skip
    auth: Literal["on", "off"] = Field(
        default="on", validation_alias="RUNYARD_AUTH", description="`off` lets everybody in; refused beyond loopback."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias="RUNYARD_LOG_LEVEL",
        description="`debug`, `info`, `warning` or `error`; logs are JSON lines on stderr.",
    )  # fmt: skip

    def token(self) -> str | None:
        """The service token; None when authentication is off. Raises ``ValueError`` when it is on and there is none."""
        if self.auth == "off":
            return None
        if self.service_token is None or not self.service_token.get_secret_value():
            raise ValueError("RUNYARD_SERVICE_TOKEN is not set (or set RUNYARD_AUTH=off, on loopback only)")
        return self.service_token.get_secret_value()


LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def refuse_open_door(auth: str, host: str) -> None:
    """Raises ``ValueError`` when authentication is off on an address others can reach."""
    if auth == "off" and host not in LOOPBACK:
        raise ValueError(f"RUNYARD_AUTH=off is possible on loopback only, not on {host}")
