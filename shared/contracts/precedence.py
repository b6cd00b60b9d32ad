"""Who wins where several say something about a run: the first in a row that has a value. Options are merged name by name.

The control plane settles what request and app say; an executor adds its command profile, an adapter what it has built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")

PRECEDENCE: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "provider": ("app", "request"),
    "model": ("app", "request", "command_profile", "built_in"),
    "options": ("request", "app", "command_profile", "built_in"),
    "retry.maxAttempts": ("request", "app"),
    "environment": ("request", "built_in"),
    "credentials": ("app", "executor"),
})  # fmt: skip


def picked(field: str, **says: T | None) -> T | None:
    """The value of the first in ``PRECEDENCE[field]`` that has one."""
    return next((says[who] for who in PRECEDENCE[field] if says.get(who) is not None), None)


def merged(field: str, **says: Mapping[str, Any]) -> dict[str, Any]:
    """All names that anybody says something about, each with the value of the first in ``PRECEDENCE[field]`` that has it."""
    names: dict[str, Any] = {}
    for who in reversed(PRECEDENCE[field]):
        names.update(says.get(who, {}))
    return names
