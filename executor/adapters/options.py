"""What callers may set for every engine alike: the options all know, the model's endpoint, and what is told of the others."""

from __future__ import annotations

from collections.abc import Set

from executor.adapters.base import Emit, StartRequest, Step
from shared.contracts.events import Diagnostic
from shared.errors import invalid

# The last two say something to the manager, and come along.
EVERYWHERE = frozenset({"baseUrl", "mcpServers", "skills", "timeoutMs", "runTimeoutMs"})
MAX_TOLD = 10


def told_ignored(request: StartRequest, known: Set[str], engine: str) -> list[Step]:
    """One sentence for every option that changes nothing, the first few."""
    unknown = sorted(set(request.provider_options) - known)[:MAX_TOLD]
    said = [f"providerOptions.{name[:64]} is not known to {engine}" for name in unknown]
    return [Emit(Diagnostic(code="option_ignored", message=each)) for each in said]


def base_url_of(request: StartRequest, variable: str) -> str | None:
    """The endpoint to use instead of the built-in one: the request's, else the variable's."""
    given = request.provider_options.get("baseUrl") or request.credential_env.get(variable)
    if given is None:
        return None
    if not isinstance(given, str) or not given.startswith(("http://", "https://")):
        raise invalid("providerOptions.baseUrl", "must be an http or https URL")
    return given
