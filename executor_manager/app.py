"""What the executor manager is made of. It holds no truth and may be restarted at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from executor_manager.fleet import ExecutorFleet, Resolver, by_dns
from executor_manager.locate import Locate, ProposeExecutor
from executor_manager.relay import Relay
from executor_manager.routes import Passage, fleet_routes, provider_run_routes
from executor_manager.settings import Settings
from executor_manager.timeouts import load_timeouts
from shared.http import ServiceClient
from shared.settings import refuse_open_door
from shared.web import EXCEPTION_HANDLERS, make_routes, service_guard


def build_app(settings: Settings, *, resolve: Resolver = by_dns) -> Starlette:
    """Raises ``ValueError`` for settings that cannot work: no token, an open door, a bad timeout table."""
    refuse_open_door(settings.auth, settings.host)
    token = settings.token()
    timeouts = load_timeouts(settings.run_timeout_ms, settings.timeout_templates)
    client = ServiceClient("", token)
    fleet = ExecutorFleet(settings.executors, client, resolve)
    passage = Passage(Locate(fleet, client), Relay(client, token))
    operations = (
        *fleet_routes(fleet, timeouts),
        *provider_run_routes(ProposeExecutor(fleet), passage, timeouts),
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(fleet.watch())
            try:
                yield
            finally:
                watch.cancel()
        await client.close()

    return Starlette(
        routes=make_routes(operations, service_guard(token)),
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=lifespan,
    )
