"""API keys: only a hash is kept; the key itself is shown once."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load
from shared.contracts.apps import Key

_SQL = load("keys")


class StoredKey(NamedTuple):
    key_id: str
    app_id: str | None
    secret_sha256: bytes
    scopes: list[str]
    app_disabled: bool = False


class KeyStore:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def create(self, key: StoredKey, name: str) -> None:
        with storage_errors():
            await self._pool.execute(_SQL["create"], key.key_id, key.app_id, name, key.secret_sha256, key.scopes)

    async def one(self, key_id: str) -> StoredKey | None:
        """The key with this id, unless it was revoked. An app that was never registered is not disabled."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["one"], key_id)
        return None if row is None else StoredKey(*row)

    async def page(self, after: str, limit: int, app_id: str | None) -> list[Key]:
        """Those with ids after ``after``, revoked ones too; of one app, or of all."""
        with storage_errors():
            rows = await self._pool.fetch(_SQL["page"], after, limit, app_id)
        return [Key(**row) for row in rows]

    async def revoke(self, key_id: str) -> Key | None:
        """The key, revoked now or before; None where there is no such key."""
        with storage_errors():
            row = await self._pool.fetchrow(_SQL["revoke"], key_id)
        return None if row is None else Key(**row)
