"""``/api/keys``: parse, call one use case, answer. No decisions here."""

from __future__ import annotations

from pydantic import Field

from control_plane.access import MakeKey, ReadKeys, RevokeKey
from shared.contracts.apps import Key, KeyList, KeyMade, NewKey
from shared.contracts.wire import Request
from shared.errors import ErrorCode
from shared.web import Answer, Call, Operation, delete, get, post


class KeysQuery(Request):
    app_id: str | None = Field(default=None, max_length=64, description="Of this app only.")
    cursor: str = Field(default="", max_length=64, description="The last keyId of the page before.")
    limit: int = Field(default=50, ge=1, le=500)


def key_routes(make_key: MakeKey, read: ReadKeys, revoke_key: RevokeKey) -> tuple[Operation, ...]:
    async def make(call: Call[NewKey]) -> Answer:
        return Answer(await make_key(call.body, call.caller))

    async def page(call: Call[None]) -> Answer:
        query: KeysQuery = call.query
        return Answer(await read(call.caller, query.cursor, query.limit, query.app_id))

    async def revoke(call: Call[None]) -> Answer:
        return Answer(await revoke_key(call.path["key_id"], call.caller))

    return (
        post("/api/keys", make, body=NewKey, returns=KeyMade, status=201, errors=(ErrorCode.PERMISSION_DENIED,),
             summary="Make a key; it is shown once"),
        get("/api/keys", page, query=KeysQuery, returns=KeyList, errors=(ErrorCode.PERMISSION_DENIED,),
            summary="The keys there are, revoked ones too; never a key itself"),
        delete("/api/keys/{key_id}", revoke, returns=Key, errors=(ErrorCode.PERMISSION_DENIED, ErrorCode.NOT_FOUND),
               summary="Revoke a key: from now on it opens nothing"),
    )  # fmt: skip
