"""API keys: only a hash is kept; the key itself is shown once."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from control_plane.storage.failures import storage_errors
from control_plane.storage.queries import load

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
