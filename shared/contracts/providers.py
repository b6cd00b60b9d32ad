"""The names of providers: what a caller picks, what it may still call it, and what each can do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from shared.contracts.wire import Wire
from shared.errors import ErrorCode, invalid


class Provider(StrEnum):
    CODEX_APP_SERVER = "codex-app-server"
    CLAUDE_CODE = "claude-code"
    OPENCODE = "opencode"
    GEMINI_CLI = "gemini-cli"
    IFLOW_CLI = "iflow-cli"
    QWEN_CODE = "qwen-code"
    SCRIPTED = "scripted"


# Accepted everywhere, translated at the edge, never stored.
ALIASES: Mapping[str, Provider] = MappingProxyType(
    {
        "codex-cli": Provider.CODEX_APP_SERVER,
        "codex": Provider.CODEX_APP_SERVER,
        "claude": Provider.CLAUDE_CODE,
        "gemini": Provider.GEMINI_CLI,
        "iflow": Provider.IFLOW_CLI,
        "qwen": Provider.QWEN_CODE,
    }
)


# Providers nobody can run any more, and why. They keep their adapter, which says so where readiness is asked.
CLOSED: Mapping[Provider, str] = MappingProxyType(
    {Provider.IFLOW_CLI: "its vendor closed it in April 2026 and took its package from the registry"}
)
# Those a run can be started with. Each has its adapter: tests/contract/test_providers.py holds the executor's table against all.
DRIVEN: frozenset[Provider] = frozenset(Provider) - CLOSED.keys()

# A provider as callers may write it; translated by ``provider_named``, which says what is known when it is none.
ProviderName = Annotated[str, WithJsonSchema({"type": "string", "enum": [*Provider, *ALIASES]})]


def provider_named(name: str, where: str = "provider") -> Provider:
    """The provider a caller means. Raises ``invalid_request`` naming ``where`` for a name nobody knows."""
    if name in ALIASES:
        return ALIASES[name]
    try:
        return Provider(name)
    except ValueError:
        known = ", ".join(each.value for each in Provider)
        raise invalid(where, f"there is no provider {name[:64]!r}; known: {known}") from None


class EngineMode(StrEnum):
    """How freely an engine may act."""

    PLAN = "plan"
    READ_ONLY = "read-only"
    ASK = "ask"
    AUTO_EDIT = "auto-edit"
    FULL = "full"


class Capabilities(Wire):
    """What a provider can do; what it cannot is answered with ``capability_unavailable``, never ignored."""

    deltas: bool = False
    reasoning: bool = False
    tools: bool = False
    permissions: bool = False
    questions: bool = False
    plan: bool = False
    messages: bool = False
    interrupt: bool = False
    resume: bool = False
    output_schema: bool = False
    usage: bool = False
    engine_modes: tuple[EngineMode, ...] = ()


class ReadinessCategory(StrEnum):
    READY = "ready"
    ENVIRONMENT_NOT_READY = "environment_not_ready"
    RUNTIME_UNHEALTHY = "runtime_unhealthy"


class ProviderReadiness(Wire):
    """Whether an executor can run a provider, and if not, why. Never a credential's value."""

    provider: Provider
    installed: bool
    version: str | None = None
    pinned_version: str | None = None
    readiness_category: ReadinessCategory
    blocking_reason: str | None = None
    capabilities: Capabilities
    executors: list[str] | None = Field(default=None, description="Of a fleet: the executors it is so at.")


class ProviderList(Wire):
    items: list[ProviderReadiness]


class PausedProvider(Wire):
    """A provider that is not tried for an app's runs, because the model refused them again and again."""

    provider: Provider
    app_id: str | None = Field(default=None, description="Whose credentials they use; null: the executors' own, for an operator.")
    error_code: ErrorCode
    failures: int = Field(description="In a row, without a success between them.")
    since: datetime
    next_try_at: datetime = Field(description="From then on one run at a time may try.")
    trying: str | None = Field(default=None, description="The run that tries now.")
    runs: Literal["wait", "refuse"] = Field(description="What further runs do meanwhile: wait in the queue, or fail at once.")


class ProvidersShown(ProviderList):
    paused: list[PausedProvider] = Field(
        description="For whom a provider is not tried now: the caller's app; for an operator all."
    )
