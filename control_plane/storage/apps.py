"""Apps in Postgres. Only ``credentials`` reads a credential's value; everything else reads names."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from pydantic import TypeAdapter

from control_plane.domain.app import RegisteredApp
from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from shared.contracts.apps import AppMember, RegisterApp, Retention, RuntimeDefaults, VisibilityRule

_SQL = load("apps")
_RULES, _MEMBERS = TypeAdapter(list[VisibilityRule]), TypeAdapter(list[AppMember])


class AppStore:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def register(self, app: RegisterApp) -> None:
        """Make the app, or replace what it was."""
        defaults = app.runtime_defaults.model_dump_json(by_alias=True, exclude={"credential_env"})
        with storage_errors():
            await self._pool.execute(
                _SQL["register"], app.app_id, app.name, app.enabled,
                _RULES.dump_json(app.visibility_rules, by_alias=True).decode(),
                _MEMBERS.dump_json(app.members, by_alias=True).decode(),
                defaults, json.dumps(app.runtime_defaults.credential_env),
                app.retention.model_dump_json(by_alias=True) if app.retention is not None else None,
            )  # fmt: skip

    async def one(self, app_id: str) -> RegisteredApp | None:
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["one"], app_id)
        return None if row is None else _app(row)

    async def page(self, after: str, limit: int) -> list[RegisteredApp]:
        """By id, from the one after ``after``."""
        with storage_errors():
            return [_app(row) for row in await self._pool.fetch(_SQL["page"], after, limit)]

    async def credentials(self, app_id: str) -> dict[str, str] | None:
        """Names and values; None: the app is unknown or disabled, and lends nothing."""
        with storage_errors():
            text = await self._pool.fetchval(_SQL["credentials"], app_id)
        return json.loads(text) if text is not None else None


def _app(row: Any) -> RegisteredApp:
    return RegisteredApp(
        app_id=row["app_id"], name=row["name"], enabled=row["enabled"],
        visibility_rules=_RULES.validate_json(row["visibility_rules"]), members=_MEMBERS.validate_json(row["members"]),
        defaults=RuntimeDefaults.model_validate_json(row["runtime_defaults"]), credential_names=sorted(row["credential_names"]),
        created_at=row["created_at"], updated_at=row["updated_at"],
        retention=Retention.model_validate_json(row["retention"]) if row["retention"] is not None else None,
    )  # fmt: skip
