"""Prints the reference of settings, errors and retries from the classes and tables that decide them. See
``docs/configuration.md``, ``docs/reference/errors.md`` and ``docs/reliability.md``."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from control_plane.domain.retrying import RETRYING, Retrying
from control_plane.settings import Settings as ControlPlaneSettings
from executor.settings import ExecutorSettings
from executor_manager.settings import Settings as ManagerSettings
from scripts.generated_parts import Part, print_or_write, table
from shared.errors import ERRORS
from shared.settings import ServiceSettings

CONFIGURATION = "docs/configuration.md"
SERVICES: dict[str, type[ServiceSettings]] = {
    "all": ServiceSettings, "control plane": ControlPlaneSettings, "executor manager": ManagerSettings,
    "executor": ExecutorSettings,
}  # fmt: skip


def fields() -> list[tuple[str, str, FieldInfo]]:
    """Of every setting: whose it is, its variable, and the field. A setting all services share is listed once."""
    shared = set(ServiceSettings.model_fields)
    return [
        (service, str(field.validation_alias), field)
        for service, settings in SERVICES.items()
        for name, field in settings.model_fields.items()
        if settings is ServiceSettings or name not in shared
    ]


def settings_table() -> str:
    rows = [(service, f"`{variable}`", _default(field), field.description or "") for service, variable, field in fields()]
    return table(("service", "variable", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value in (None, []) or isinstance(value, SecretStr):
        return "–"
    return f"`{','.join(map(str, value)) if isinstance(value, list) else value}`"  # pyright: ignore[reportUnknownArgumentType]


def errors_table() -> str:
    rows = [(f"`{code}`", str(row.status), "yes" if row.retryable else "no", row.title, row.hint) for code, row in ERRORS.items()]
    return table(("code", "HTTP", "retryable", "what happened", "what to do"), rows)


def retries_table() -> str:
    rows = [
        (
            f"`{code}`",
            str(row.attempts) if row.attempts > 1 else "1, more for who asks",
            _wait(row),
            "yes" if row.is_crash else "",
        )
        for code, row in RETRYING.items()
    ]
    return table(("failure", "attempts in all", "first wait, longest wait", "counts as broken"), rows)


def _wait(row: Retrying) -> str:
    return f"{row.first_ms / 1000:g} s, {row.longest_ms / 1000:g} s" if row.first_ms else "none"


PARTS = {
    "settings": Part(CONFIGURATION, settings_table),
    "errors": Part("docs/reference/errors.md", errors_table),
    "retries": Part("docs/reliability.md", retries_table),
}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
