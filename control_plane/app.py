"""What the control plane is made of: reading ``build_app`` tells it. Nothing else knows all its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import random

import structlog
from starlette.applications import Starlette

from control_plane.access import CheckKey, MakeKey, ReadKeys, RevokeKey
from control_plane.apps import KeepApp, ReadApps
from control_plane.domain.bounds import Bounds
from control_plane.domain.line import Ageing, Caps
from control_plane.domain.retention import Keep
from control_plane.interactions.expire import ExpireQuestions
from control_plane.interactions.inbox import ReadInbox
from control_plane.interactions.reply import ReplyToQuestion
from control_plane.manager_client import ManagerClient
from control_plane.metrics import count, watch
from control_plane.providers import ReadProviders
from control_plane.readiness import Readiness
from control_plane.routes.apps import app_routes
from control_plane.routes.interactions import interaction_routes
from control_plane.routes.keys import key_routes
from control_plane.routes.messages import message_routes
from control_plane.routes.page import page_routes
from control_plane.routes.run_files import run_file_routes
from control_plane.routes.runs import run_routes
from control_plane.routes.system import document_routes, system_routes
from control_plane.runs.attend import AttendAttempt
from control_plane.runs.control import StopRun
from control_plane.runs.create import CreateRun, RetryRun
from control_plane.runs.deliver import DeliverIntents
from control_plane.runs.dispatch import Dispatcher
from control_plane.runs.drive import DriveRun
from control_plane.runs.files import ReadFiles
from control_plane.runs.follow import TailHub
from control_plane.runs.gate import Gate
from control_plane.runs.insist import InsistOnEnd
from control_plane.runs.interrupt import InterruptSession
from control_plane.runs.leases import Leases
from control_plane.runs.leashes import Leashes
from control_plane.runs.messages import SendRunMessage
from control_plane.runs.park import AskToPark, DeliverParking
from control_plane.runs.read import ReadRun
from control_plane.runs.reap import Reaper
from control_plane.runs.record import Recorder
from control_plane.runs.retain import Retain
from control_plane.runs.room import Room
from control_plane.runs.start import StartAttempt
from control_plane.settings import Settings
from control_plane.storage.apps import AppStore
from control_plane.storage.breakers import BreakerStore
from control_plane.storage.events import EventStore
from control_plane.storage.interactions import InteractionStore
from control_plane.storage.keys import KeyStore
from control_plane.storage.messages import MessageStore
from control_plane.storage.migrate import migrate
from control_plane.storage.parking import ParkingStore
from control_plane.storage.pool import make_pool, opened
from control_plane.storage.retention import RetentionStore
from control_plane.storage.run_log import RunLog
from control_plane.storage.runs import RunStore
from control_plane.storage.snapshots import SnapshotStore
from control_plane.storage.wakeups import Channel, Wakeups
from control_plane.views.workbench import FLAT_FRAMES
from shared.clock import monotonic
from shared.contracts.events import PAYLOADS
from shared.contracts.providers import DRIVEN, Provider
from shared.health import health_routes, release
from shared.ids import NewId, random_id
from shared.openapi import document
from shared.server import Stopping, end_this_process
from shared.web import EXCEPTION_HANDLERS, make_routes

log = structlog.get_logger("app")

LOG_CONNECTIONS = 3  # the recorder's, and those of stops and of the sweeper, which never wait for it


def build_app(  # long: the composition root, read in one piece
    settings: Settings,
    *,
    stopping: Stopping | None = None,
    new_id: NewId = random_id,
    bounds: Bounds | None = None,
    chance: Callable[[], float] = random,
) -> Starlette:
    """The whole service; nothing is connected before its lifespan begins. Raises ``ValueError`` for settings that do not fit."""
    settings.refuse_what_does_not_fit()
    fit = (bounds or Bounds()).check()
    dsn, token = settings.dsn(), settings.token()
    pool = make_pool(dsn, settings.pool_size, wait_seconds=fit.acquire)
    lease_pool = make_pool(dsn, 1, fit.renew_every, fit.acquire)
    log_pool = make_pool(
        dsn, LOG_CONNECTIONS, wait_seconds=fit.acquire
    )  # what engines tell does not stand in line behind who reads
    wakeups, manager = Wakeups(dsn), ManagerClient(settings.manager_urls, token, fit.call)
    runs, events, messages, parking = (
        RunStore(pool, wakeups.tell, Ageing(settings.ageing_seconds), Caps.told(settings.app_runs, settings.provider_runs)),
        EventStore(pool),
        MessageStore(pool, wakeups.tell),
        ParkingStore(pool, wakeups.tell),
    )
    interactions, keys, apps, breakers = InteractionStore(pool, wakeups.tell), KeyStore(pool), AppStore(pool), BreakerStore(pool)

    hub = TailHub(runs, events)
    run_log = RunLog(log_pool, on_commit=(hub.committed, wakeups.committed, count), chance=chance)
    leases = Leases(RunStore(lease_pool), fit.lease, fit.renew_every)
    recorder = Recorder(run_log, leases.drop)
    leashes = Leashes(manager, fit.renew_every, fit.probe, fit.renewal)
    attend = AttendAttempt(manager, recorder, fit, monotonic)
    start = StartAttempt(manager, leashes, fit, monotonic)
    drive = DriveRun(
        runs,
        interactions,
        messages,
        SnapshotStore(pool),
        apps,
        recorder,
        manager,
        leashes,
        Room(monotonic),
        start,
        attend,
        Gate(breakers, recorder),
    )
    deliver, interrupt = (
        DeliverIntents(
            runs, interactions, messages, manager, run_log, DeliverParking(parking, interactions, manager), leashes, fit.stop
        ),
        InterruptSession(runs, run_log),
    )
    dispatcher = Dispatcher(runs, drive, deliver, leases, recorder, settings.drives)
    reaper = Reaper(
        runs,
        run_log,
        ExpireQuestions(interactions, run_log),
        fit.sweep_every,
        settings.queue_seconds,
        breakers,
        interrupt,
        AskToPark(parking, settings.park_seconds),
    )
    wakeups.hear({
        Channel.EVENTS: hub.heard, Channel.WORK: dispatcher.work_heard, Channel.INTENTS: dispatcher.intent_heard,
    })  # fmt: skip

    driven = frozenset(Provider) if settings.provider_mode == "scripted" else DRIVEN
    create = CreateRun(runs, apps, breakers, interrupt, new_id, Provider(settings.default_provider), driven, settings.queue_limit)
    read = ReadRun(runs, events, interactions, hub)
    readiness = Readiness(runs, manager, lambda: dispatcher.draining)
    operations = (
        *run_routes(create, RetryRun(runs, create), read, StopRun(runs, run_log)),
        *message_routes(SendRunMessage(runs, messages, manager, new_id)),
        *run_file_routes(ReadFiles(runs, manager)),
        *interaction_routes(ReplyToQuestion(runs, interactions), ReadInbox(interactions)),
        *app_routes(KeepApp(apps, breakers), ReadApps(apps)),
        *key_routes(MakeKey(keys, new_id), ReadKeys(keys), RevokeKey(keys)),
        *system_routes(ReadProviders(manager, breakers), readiness.chain),
    )
    operations = (*operations, *health_routes("control-plane", readiness))
    described = document("Runyard", release(), operations, (*PAYLOADS.values(), *FLAT_FRAMES))
    served = (*operations, *document_routes(lambda: described), *page_routes())
    watch(driven=lambda: dispatcher.driven, readers=lambda: hub.readers)

    loops = Loops({
        "recorder": recorder.run, "tails": hub.run, "wakeups": wakeups.run, "leases": leases.run,
        "leashes": leashes.run, "reaper": reaper.run, "insist": InsistOnEnd(runs, run_log, manager, fit, monotonic).run,
        "retention": Retain(RetentionStore(pool), manager, _keep(settings), settings.retention_seconds).run,
    })  # fmt: skip

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        for applied in await migrate(dsn):
            log.info("migrated", version=applied)
        async with opened(pool), opened(lease_pool), opened(log_pool):
            # The dispatcher ends first: its drivers hand their runs back through everything below.
            async with loops.running(), Loops({"dispatcher": dispatcher.run}).running(), _leaving(stopping, dispatcher, hub):
                yield
            await manager.close()

    guard = CheckKey(
        keys,
        settings.admin_key.get_secret_value() if settings.admin_key else None,
        token,
        open_door=settings.auth == "off",
    )
    return Starlette(routes=make_routes(served, guard), exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)


@asynccontextmanager
async def _leaving(stopping: Stopping | None, dispatcher: Dispatcher, hub: TailHub) -> AsyncGenerator[None]:
    """At the signal, not when the last connection is closed: others take the runs over, and readers go to them."""
    if stopping is not None:
        stopping.on(dispatcher.drain)
        stopping.on(hub.stop)
    yield
    dispatcher.drain()
    await dispatcher.handed_over()


def _keep(settings: Settings) -> Keep:
    return Keep(settings.keep_output_days, settings.keep_events_days, settings.keep_runs_days, settings.keep_bytes)


@dataclass(frozen=True, slots=True)
class Loops:
    """Background loops with an owner. One that breaks ends the process: a half-alive replica would hold its leases."""

    named: Mapping[str, Callable[[], Awaitable[None]]]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        tasks = [asyncio.create_task(self._guarded(name, run), name=name) for name, run in self.named.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except Exception as error:
            log.critical("loop.broken", loop=name, exc_info=error)
            end_this_process()
