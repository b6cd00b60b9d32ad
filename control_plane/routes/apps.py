"""``/api/apps``: parse, call one use case, answer. No decisions here."""

from __future__ import annotations

from pydantic import Field

from control_plane.apps import KeepApp, ReadApps
from shared.contracts.apps import App, AppList, RegisterApp
from shared.contracts.wire import Request
from shared.errors import ErrorCode
from shared.web import Answer, Call, Operation, get, post


class AppsQuery(Request):
    cursor: str = Field(default="", max_length=64, description="The last appId of the page before.")
    limit: int = Field(default=50, ge=1, le=500)


def app_routes(keep: KeepApp, read: ReadApps) -> tuple[Operation, ...]:
    async def register(call: Call[RegisterApp]) -> Answer:
        return Answer(await keep(call.body, call.caller))

    async def page(call: Call[None]) -> Answer:
        query: AppsQuery = call.query
        return Answer(await read.page(call.caller, query.cursor, query.limit))

    async def show(call: Call[None]) -> Answer:
        return Answer(await read.one(call.path["app_id"], call.caller))

    return (
        post("/api/apps/register", register, body=RegisterApp, returns=App, errors=(ErrorCode.PERMISSION_DENIED,),
             summary="Make an app, or replace what it was; credential values go in and only their names come out"),
        get("/api/apps", page, query=AppsQuery, returns=AppList, summary="The apps this caller sees"),
        get("/api/apps/{app_id}", show, returns=App, errors=(ErrorCode.NOT_FOUND,), summary="One app"),
    )  # fmt: skip
