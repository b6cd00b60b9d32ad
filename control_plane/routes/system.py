"""The whole chain's readiness, the fleet as callers may see it, and the API's own description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from control_plane.providers import ReadProviders
from shared.contracts.providers import ProvidersShown
from shared.errors import ErrorCode
from shared.web import Answer, Call, Operation, get


def system_routes(read_providers: ReadProviders, readiness: Callable[[], Awaitable[Mapping[str, Any]]]) -> tuple[Operation, ...]:
    async def providers(call: Call[None]) -> Answer:
        return Answer(await read_providers(call.caller))

    async def chain(_call: Call[None]) -> Answer:
        return Answer(await readiness())

    return (
        get("/api/providers", providers, returns=ProvidersShown, errors=(ErrorCode.MANAGER_UNAVAILABLE,),
            summary="Providers and whether an executor can run them"),
        get("/api/system/readiness", chain, summary="The whole chain: database, manager, executors, providers"),
    )  # fmt: skip


def document_routes(document: Callable[[], Mapping[str, Any]]) -> tuple[Operation, ...]:
    async def show(_call: Call[None]) -> Answer:
        return Answer(document())

    return (get("/openapi.json", show, access="open", summary="This API as OpenAPI 3.1"),)
