"""What every service's settings have in common. Only the services' own app modules read settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query + parts.fragment
    except ValueError:  # also of a port that is no number
        whole = False
    if not whole:
        raise ValueError("not a base URL, as http://host:8090 is one")
    return value


UrlList = Annotated[list[Annotated[str, AfterValidator(_base_url)]], NoDecode, BeforeValidator(_split)]
PathList = Annotated[list[Path], NoDecode, BeforeValidator(_split)]
"""Comma-separated lists in the environment."""


def secret_from_file(variable: str) -> str | None:
    """For a secret ``X``: what the file holds that ``X_FILE`` names, as container engines hand secrets over; None without one.

    Raises ``ValueError`` naming the variable when both are set, or when the file cannot be read.
    """
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return None
    if os.environ.get(variable):
        raise ValueError(f"{variable} and {variable}_FILE are both set")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{variable}_FILE cannot be read ({getattr(error, 'strerror', None) or 'it is no text'})") from None


class SecretFiles(PydanticBaseSettingsSource):
    """Every secret ``X`` may stand in the file that ``X_FILE`` names. Raises ``ValueError``, as ``secret_from_file`` does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = str(field.validation_alias)
        found = secret_from_file(variable) if is_secret(field) else None
        return found, field_name if found is None else variable, False

    def __call__(self) -> dict[str, Any]:
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {variable: value for value, variable, _ in found if value is not None}


def is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


class ServiceSettings(BaseSettings):
    """Environment variables shared by all services."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, hide_input_in_errors=True)

    service_token: SecretStr | None = Field(
        default=None, validation_alias="RUNYARD_SERVICE_TOKEN",
        description="What the services show each other; the same for all, required while `RUNYARD_AUTH` is on.",
    )  # fmt: skip
    auth: Literal["on", "off"] = Field(
        default="on",
        validation_alias="RUNYARD_AUTH",
        description="`off` lets everybody on this machine in, no page of the web; refused beyond loopback.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias="RUNYARD_LOG_LEVEL",
        description="`debug`, `info`, `warning` or `error`; logs are JSON lines on stderr.",
    )  # fmt: skip

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller says, the environment, the files it names; nothing is read from a place nobody named."""
        return init_settings, env_settings, SecretFiles(settings_cls)

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
