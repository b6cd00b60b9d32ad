"""Command profiles: what an engine is started with when nobody said otherwise. For runs only; the harness never reads them.

Where they stand among request, app and what an adapter has built in is ``shared.contracts.precedence``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.contracts.providers import Provider, provider_named
from shared.errors import RunyardError

SHIPPED = "engine_command_profiles.json"


class CommandProfileError(ValueError):
    """The profiles cannot be used; the message names the file and the key."""


class CommandProfile(BaseModel):
    """``arguments`` follow those the adapter gives its engine; ``model`` and ``options`` are what a request may say too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arguments: tuple[str, ...] = ()
    model: str | None = Field(default=None, min_length=1)
    options: dict[str, Any] = Field(default_factory=dict[str, Any])


CommandProfiles = Mapping[Provider, CommandProfile]
_FILE = TypeAdapter(dict[str, CommandProfile])
NONE = CommandProfile()


def load_command_profiles(override: Path | None = None) -> CommandProfiles:
    """The shipped profiles, with the override's providers in place of theirs. Raises ``CommandProfileError``."""
    profiles = _parse(files("executor").joinpath(SHIPPED).read_bytes(), SHIPPED)
    if override is not None:
        try:
            profiles |= _parse(override.read_bytes(), str(override))
        except OSError as error:
            raise CommandProfileError(f"{override}: cannot be read: {error.strerror}") from error
    return MappingProxyType(profiles)


def _parse(content: bytes, where: str) -> dict[Provider, CommandProfile]:
    try:
        named = _FILE.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CommandProfileError(f"{where}: {key}: {first['msg']}" if key else f"{where}: {first['msg']}") from error
    profiles: dict[Provider, CommandProfile] = {}
    for name, profile in named.items():
        try:
            provider = provider_named(name, name)
        except RunyardError as error:
            raise CommandProfileError(f"{where}: {error.detail}") from error
        if provider in profiles:
            raise CommandProfileError(f"{where}: {name}: {provider} has an entry already")
        profiles[provider] = profile
    return profiles
