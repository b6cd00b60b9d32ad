"""Who calls: API keys (hashed), the admin key of the operator, the service token. On by default."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from control_plane.domain.plain_text import refuse_nul
from control_plane.storage.keys import KeyStore, StoredKey
from shared.contracts.apps import Key, KeyList, KeyMade, NewKey
from shared.errors import ErrorCode, RunyardError, invalid
from shared.ids import NewId
from shared.web import Caller, bearer, refuse_foreign_pages

_PREFIX = "ry"
ACT_AS = "act-as"  # the scope of a gateway's key
MAX_USER_ID = 128


def _digest(secret: str) -> bytes:
    """Keys are 256 random bits: a plain hash is enough, a slow one would only cost time."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class MakeKey:
    keys: KeyStore
    new_id: NewId

    async def __call__(self, request: NewKey, caller: Caller) -> KeyMade:
        """Raises ``permission_denied`` unless an admin asks, and ``invalid_request``."""
        _must_be_admin(caller)
        refuse_nul(request)
        key_id, secret = self.new_id("key"), secrets.token_urlsafe(32)
        await self.keys.create(StoredKey(key_id, request.app_id, _digest(secret), list(request.scopes)), request.name)
        return KeyMade(key_id=key_id, key=f"{_PREFIX}.{key_id}.{secret}")


@dataclass(frozen=True, slots=True)
class ReadKeys:
    keys: KeyStore

    async def __call__(self, caller: Caller, after: str, limit: int, app_id: str | None) -> KeyList:
        """By id. Raises ``permission_denied`` unless an admin asks."""
        _must_be_admin(caller)
        found = await self.keys.page(after, limit + 1, app_id)
        items = found[:limit]
        return KeyList(items=items, next_cursor=items[-1].key_id if len(found) > limit else None)


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """For ever: whoever still needs one makes another. What is open with it goes on until it is opened anew."""

    keys: KeyStore

    async def __call__(self, key_id: str, caller: Caller) -> Key:
        """Idempotent. Raises ``permission_denied`` unless an admin asks, ``not_found``."""
        _must_be_admin(caller)
        revoked = await self.keys.revoke(key_id)
        if revoked is None:
            raise RunyardError(ErrorCode.NOT_FOUND, f"no key {key_id[:64]}")
        return revoked


def _must_be_admin(caller: Caller) -> None:
    if not caller.admin:
        raise RunyardError(ErrorCode.PERMISSION_DENIED, "only an admin key makes, shows and revokes keys")


@dataclass(frozen=True, slots=True)
class CheckKey:
    """The guard of every ``/api`` route. ``open_door``: authentication is off, everybody is the operator."""

    keys: KeyStore
    admin_key: str | None
    service_token: str | None
    open_door: bool = False

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Raises ``unauthorized``, and ``permission_denied``. A service that shows its token is an admin."""
        if self.open_door:
            refuse_foreign_pages(connection)
            return Caller(admin=True, user_id=_user(connection))
        given = bearer(connection)
        if given is None:
            raise RunyardError(ErrorCode.UNAUTHORIZED, "no key came with the request")
        for known in (self.admin_key, self.service_token):
            if known is not None and hmac.compare_digest(given.encode(), known.encode()):
                return Caller(admin=True, key_id="admin", user_id=_user(connection))
        return await self._stored(given, connection)

    async def _stored(self, given: str, connection: HTTPConnection) -> Caller:
        prefix, _, rest = given.partition(".")
        key_id, _, secret = rest.partition(".")
        stored = await self.keys.one(key_id) if prefix == _PREFIX and secret and key_id.isascii() and "\0" not in key_id else None
        if stored is None or not hmac.compare_digest(stored.secret_sha256, _digest(secret)):
            raise RunyardError(ErrorCode.UNAUTHORIZED, "the key is not known")
        if stored.app_disabled:
            raise RunyardError(ErrorCode.PERMISSION_DENIED, f"the app {stored.app_id} is disabled")
        return Caller(
            app_id=stored.app_id, admin=stored.app_id is None, key_id=stored.key_id, scopes=frozenset(stored.scopes),
            user_id=_user(connection) if ACT_AS in stored.scopes or stored.app_id is None else None,
        )  # fmt: skip


def _user(connection: HTTPConnection) -> str | None:
    """The user a gateway speaks for. Raises ``invalid_request`` for a name no user has."""
    name = connection.headers.get("x-user-id")
    if name is not None and not (1 <= len(name) <= MAX_USER_ID and name.isprintable()):
        raise invalid("X-User-Id", f"1 to {MAX_USER_ID} printable characters")
    return name
