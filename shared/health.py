"""What every service answers about itself, without a key: does it live, can it do its job, which version, which numbers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from starlette.responses import Response

from shared.contracts.wire import Wire
from shared.web import Answer, Call, Operation, get

NOT_READY = {503: "Not ready; the body says why"}
Ready = Callable[[], Awaitable[list[str]]]


class Alive(Wire):
    status: str = "ok"


class Readiness(Wire):
    ready: bool
    reasons: list[str] = Field(default_factory=list[str], description="Why it is not ready; empty when it is.")


class Version(Wire):
    service: str
    version: str
    pid: int
    instance: str | None = Field(default=None, description="Of an executor: new in every life.")


def health_routes(service: str, ready: Ready, instance: str | None = None) -> tuple[Operation, ...]:
    """``ready`` gives the reasons why the service cannot do its job now, [] when it can; it must be quick and never raise."""

    async def livez(_call: Call[Any]) -> Answer:
        return Answer(Alive())

    async def readyz(_call: Call[Any]) -> Answer:
        reasons = await ready()
        return Answer(Readiness(ready=not reasons, reasons=reasons), status=503 if reasons else 200)

    async def show_version(_call: Call[Any]) -> Answer:
        return Answer(Version(service=service, version=release(), pid=os.getpid(), instance=instance))

    async def metrics(_call: Call[Any]) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return (
        get("/livez", livez, returns=Alive, access="open", summary="Is the process alive?"),
        get("/readyz", readyz, returns=Readiness, access="open", also=NOT_READY, no_problem=frozenset(NOT_READY),
            summary="Can it do its job? 503 with the reasons when not."),
        get("/health", readyz, returns=Readiness, access="open", also=NOT_READY, no_problem=frozenset(NOT_READY),
            summary="The same as /readyz."),
        get("/version", show_version, returns=Version, access="open", summary="Which release, which process."),
        get("/metrics", metrics, access="open", summary="Numbers in the Prometheus text format."),
    )  # fmt: skip


def release() -> str:
    """The installed release, "0" when it runs from an uninstalled tree."""
    try:
        return version("runyard")
    except PackageNotFoundError:
        return "0"
