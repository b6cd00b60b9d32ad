"""What the executor manager is made of. It holds no truth and may be restarted at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from executor_manager.fleet import ExecutorFleet, Resolver, by_dns
from executor_manager.locate import Locate, ProposeExecutor
from executor_manager.relay import Relay
from executor_manager.routes import Passage, document_routes, fleet_routes, provider_run_routes
from executor_manager.settings import Settings
from executor_manager.timeouts import load_timeouts
from shared.contracts.events import PAYLOADS
from shared.health import health_routes, release
from shared.http import ServiceClient
from shared.openapi import document
from shared.server import Stopping
from shared.settings import refuse_open_door
from shared.web import EXCEPTION_HANDLERS, make_routes, service_guard


def build_app(settings: Settings, *, stopping: Stopping | None = None, resolve: Resolver = by_dns) -> Starlette:
    """Raises ``ValueError`` for settings that cannot work: no token, an open door, a bad timeout table."""
    refuse_open_door(settings.auth, settings.host)
    token = settings.token()
    timeouts = load_timeouts(settings.run_timeout_ms, settings.timeout_templates)
    client = ServiceClient("", token)
    fleet = ExecutorFleet(settings.executors, client, resolve)
    relay = Relay(client, token)

    async def reasons_not_ready() -> list[str]:
        """A missing executor is none: the manager says so itself, to those who ask for one."""
        stopping_now = ["the manager is stopping"] if relay.is_leaving else []
        return stopping_now + ([] if fleet.was_asked else ["the executors were not asked yet"])

    passage = Passage(Locate(fleet, client), relay)
    operations = (
        *fleet_routes(fleet, passage, timeouts),
        *provider_run_routes(ProposeExecutor(fleet), passage, timeouts),
        *health_routes("executor-manager", reasons_not_ready),
    )
    described = document("Runyard executor manager", release(), operations, PAYLOADS.values())

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        if stopping is not None:
            stopping.on(relay.leave)
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(fleet.watch())
            try:
                yield
            finally:
                watch.cancel()
        await fleet.close()
        await client.close()

    return Starlette(
        routes=make_routes((*operations, *document_routes(described)), service_guard(token)),
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=lifespan,
    )
