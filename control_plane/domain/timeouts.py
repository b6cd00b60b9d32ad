"""The limits of an attempt, as far as the control plane sets them, and which option set each. Pure.

How long a run may work is the manager's to say, once; afterwards the run's row holds what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shared.contracts.events import MAX_TIMEOUT_MS, LimitRules, Timeouts

INTERACTION_MS = 24 * 3600 * 1000
# The options that are milliseconds, and the most that each may be.
LONGEST: Mapping[str, int] = MappingProxyType({
    "timeoutMs": MAX_TIMEOUT_MS,
    "runTimeoutMs": MAX_TIMEOUT_MS,
    "idleTimeoutMs": MAX_TIMEOUT_MS,
    "firstEventTimeoutMs": MAX_TIMEOUT_MS,
    "interactionTimeoutMs": 7 * 24 * 3600 * 1000,
})  # fmt: skip
# Those of them that no executor is asked to heed: they travel as limits, not as options.
LIMITS = frozenset({"idleTimeoutMs", "firstEventTimeoutMs", "interactionTimeoutMs"})
REMAINING = "remaining"


def limits_of(options: Mapping[str, Any], active_ms_left: int | None, app_ms: int | None) -> Timeouts:
    """The limits of the next attempt. ``active_ms_left`` None: the run has had none, and the manager finds its rule."""
    defaults = Timeouts(interaction_ms=INTERACTION_MS)

    def option(name: str, default: int | None) -> tuple[int | None, str]:
        value = options.get(name)
        return (default, "default") if value is None else (value, f"providerOptions.{name}")

    idle_ms, idle_rule = option("idleTimeoutMs", defaults.idle_ms)
    first_ms, first_rule = option("firstEventTimeoutMs", defaults.first_event_ms)
    interaction_ms, interaction_rule = option("interactionTimeoutMs", defaults.interaction_ms)
    rules = LimitRules(idle_ms=idle_rule, first_event_ms=first_rule, interaction_ms=interaction_rule)
    limits = {"idle_ms": idle_ms, "first_event_ms": first_ms, "interaction_ms": interaction_ms, "rules": rules}
    if active_ms_left is None:
        return defaults.model_copy(update={**limits, "app_ms": app_ms})
    return defaults.model_copy(update={**limits, "run_ms": max(active_ms_left, 1), "rule": REMAINING})
