"""How long an attempt may work, and which rule said so: the request, else its app, else the table, else the setting.

A table that cannot be used is an error at start, with the name of the key; nothing is ignored in silence.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shared.contracts.events import MAX_TIMEOUT_MS
from shared.contracts.provider_runs import StartProviderRun
from shared.contracts.providers import Provider, provider_named
from shared.contracts.wire import Wire
from shared.errors import RunyardError, invalid

OPTIONS = ("timeoutMs", "runTimeoutMs")  # the first that has a value wins
APP = "app"
SETTING = "EXECUTOR_RUN_TIMEOUT_MS"
UNSETTLED = "default"


class TimeoutTableError(ValueError):
    """The timeout table cannot be used; the message names the file and the key."""


class RunTimeout(Wire):
    """What applies, in milliseconds of work, and which rule said so."""

    provider: Provider
    model: str | None = None
    run_ms: int
    rule: str


class ModelRule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(min_length=1)
    timeout_ms: int = Field(ge=1, le=MAX_TIMEOUT_MS)
    mode: Literal["includes", "exact", "regex"] = "includes"

    @model_validator(mode="after")
    def _is_a_pattern(self) -> Self:
        if self.mode == "regex":
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return self

    def matches(self, model: str) -> bool:
        return _MATCHES[self.mode](self.pattern, model)


_MATCHES: Mapping[str, Callable[[str, str], bool]] = {
    "includes": lambda pattern, model: pattern in model,
    "exact": lambda pattern, model: pattern == model,
    "regex": lambda pattern, model: re.search(pattern, model) is not None,
}


class ProviderRules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    default_timeout_ms: int = Field(ge=1, le=MAX_TIMEOUT_MS)
    model_rules: tuple[ModelRule, ...] = ()


class TimeoutTable:
    """The rules of this manager. Pure once loaded."""

    def __init__(self, rules: Mapping[Provider, ProviderRules], default_ms: int) -> None:
        self._rules = MappingProxyType(dict(rules))
        self._default_ms = default_ms

    def resolve(self, provider: Provider, model: str | None, options: Mapping[str, Any], app_ms: int | None = None) -> RunTimeout:
        """Raises ``invalid_request`` for an option that is no number of milliseconds up to 24 h."""
        run_ms, rule = (
            _from_options(options)
            or ((app_ms, APP) if app_ms is not None else None)
            or self._from_rules(provider, model)
            or (self._default_ms, SETTING)
        )
        return RunTimeout(provider=provider, model=model, run_ms=run_ms, rule=rule)

    def settle(self, request: StartProviderRun) -> StartProviderRun:
        """The request with its run timeout and rule filled in, unless its caller settled them already.

        A value of the caller that cannot be is refused in either case.
        """
        given = request.timeouts
        found = self.resolve(request.provider, request.model, request.provider_options, given.app_ms)
        settled = {"run_ms": found.run_ms, "rule": found.rule} if given.rule == UNSETTLED else {}
        return request.model_copy(update={"timeouts": given.model_copy(update={**settled, "app_ms": None})})

    def _from_rules(self, provider: Provider, model: str | None) -> tuple[int, str] | None:
        rules = self._rules.get(provider)
        if rules is None:
            return None
        for rule in rules.model_rules:
            if model is not None and rule.matches(model):
                return rule.timeout_ms, f"template: {provider} {rule.mode} {rule.pattern}"
        return rules.default_timeout_ms, f"template: {provider} default"


def _from_options(options: Mapping[str, Any]) -> tuple[int, str] | None:
    """Every one that is given is judged, also one that another stands above."""
    given = [(options[name], f"providerOptions.{name}") for name in OPTIONS if options.get(name) is not None]
    for value, where in given:
        if type(value) is not int or not 1 <= value <= MAX_TIMEOUT_MS:
            raise invalid(where, f"must be a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS}")
    return given[0] if given else None


def load_timeouts(default_ms: int, override: Path | None = None) -> TimeoutTable:
    """The shipped table with the override's providers in place of its own. Raises ``TimeoutTableError``."""
    shipped = files("executor_manager").joinpath("timeouts.toml").read_text("utf-8")
    rules = _parse(shipped, "timeouts.toml")
    if override is not None:
        try:
            text = override.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TimeoutTableError(f"{override}: cannot be read: {error}") from error
        rules |= _parse(text, str(override))
    return TimeoutTable(rules, default_ms)


_TABLE = TypeAdapter(dict[str, ProviderRules])


def _parse(text: str, where: str) -> dict[Provider, ProviderRules]:
    try:
        named = _TABLE.validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TimeoutTableError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TimeoutTableError(f"{where}: {key}: {first['msg']}") from error
    rules: dict[Provider, ProviderRules] = {}
    for name, each in named.items():
        try:
            provider = provider_named(name, name)
        except RunyardError as error:
            raise TimeoutTableError(f"{where}: {error.detail}") from error
        if provider in rules:
            raise TimeoutTableError(f"{where}: {name}: {provider} has an entry already")
        rules[provider] = each
    return rules
