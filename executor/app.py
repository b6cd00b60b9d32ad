"""The executor's composition root: reading ``build_app`` tells what it is made of, ``lifespan`` in which order it lives."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import structlog
from starlette.applications import Starlette

from executor.adapters import ADAPTERS
from executor.adapters.base import Adapter
from executor.attempts.answers import Judging
from executor.attempts.live_runs import LiveRuns, Places
from executor.attempts.prepare import Identity, Prepare
from executor.attempts.prices import load_prices
from executor.drain import Drain
from executor.engines.command_profiles import load_command_profiles
from executor.engines.credentials import CredentialStore
from executor.engines.readiness import Readiness
from executor.forgetting import Forgetting
from executor.heartbeat import Heartbeat, keep_at, keep_beating, keep_counting
from executor.processes.cgroups import Cgroups, cgroups
from executor.processes.containment import Containment, containment
from executor.processes.process_tree import Forest
from executor.routes import Executor, document_routes, executor_routes, workspace_routes
from executor.settings import ExecutorSettings
from executor.snapshots.snapshots import Snapshots
from executor.snapshots.store import open_store
from executor.state_dir import StateDir, write_whole
from executor.workspaces.known_workspaces import KnownWorkspaces
from shared.clock import Clock, utc_now
from shared.contracts.events import PAYLOADS
from shared.contracts.providers import Provider
from shared.health import health_routes, release
from shared.openapi import document
from shared.server import end_this_process
from shared.web import EXCEPTION_HANDLERS, make_routes, service_guard

log = structlog.get_logger("executor")


class ExecutorApp(Starlette):
    """``asked_to_end`` is for the moment of the signal: what is ended is ended while streams can still tell of it."""

    runs: LiveRuns
    drain: Drain
    _loop: asyncio.AbstractEventLoop | None = None
    _drains = False

    def asked_to_end(self, number: int) -> bool:
        """Whether to end now. False once, for SIGTERM: it is sent again by ourselves when there is nothing to wait for any more.

        Safe to call from a signal handler, also before anything was started: then nothing is to be ended.
        """
        if self._loop is None:
            return True
        if number == signal.SIGTERM and not self._drains and self.drain.bound_seconds > 0:
            self._drains = True
            self._loop.call_soon_threadsafe(self.drain.begin)
            return False
        self._loop.call_soon_threadsafe(self.runs.end_all)
        return True

    def started(self) -> None:
        self._loop = asyncio.get_running_loop()


def build_app(
    settings: ExecutorSettings, *, adapters: Mapping[Provider, Adapter] = ADAPTERS, clock: Clock = utc_now
) -> ExecutorApp:
    """Raises ``ValueError`` for settings that cannot be, ``OSError`` when the state directory cannot be used."""
    state = settings.state()
    state.make()
    identity = Identity(_executor_id(settings, state), settings.instance or f"inst_{token_hex(8)}", state.mark)
    table = dict.fromkeys(Provider, adapters[Provider.SCRIPTED]) if settings.provider_mode == "scripted" else adapters
    credential_names = frozenset(name for adapter in adapters.values() for name in adapter.credentials.names)
    forest = Forest(state.mark)
    credentials = CredentialStore(os.environ, settings.credentials_dir)
    readiness = Readiness(table, settings.engines_dir, credentials, forest, state.mark)
    prepare = Prepare(
        table, credential_names, credentials, readiness, settings.workspaces(), identity, settings.output_quota_bytes,
        forest.sandbox, _containment(settings, state), load_command_profiles(settings.command_profiles),
        load_prices(settings.prices), _cgroups(settings, state), Judging(forest, state.mark),
    )  # fmt: skip
    store = open_store(settings.snapshot_store) if settings.snapshot_store is not None else None
    snapshots = Snapshots(settings.workspaces(), state.snapshots, store, settings.snapshot_max_bytes, identity.executor_id)
    runs = LiveRuns(prepare, snapshots, forest, Places(state.journal, settings.workspaces(), settings.slots), identity, clock)
    drain = Drain(runs, settings.drain_seconds, end_this_process)
    known = KnownWorkspaces(settings.workspaces())
    executor = Executor(runs, readiness, identity, settings.slots, settings.workspaces(), known, table, credentials)
    forgetting = Forgetting(runs, snapshots, identity.instance)
    operations = (*executor_routes(executor), *workspace_routes(forgetting, known))
    operations = (*operations, *health_routes("executor", executor.reasons_not_ready, identity.instance))
    described = document("Runyard executor", release(), operations, PAYLOADS.values())

    @asynccontextmanager
    async def lifespan(app: ExecutorApp) -> AsyncGenerator[None]:
        app.started()
        runs.recover()
        await known.look()
        heartbeat = Heartbeat(state)
        tasks = [
            asyncio.create_task(keep_beating(heartbeat, runs)),
            asyncio.create_task(keep_counting(forest)),
            asyncio.create_task(keep_at("forgetting", forgetting.run)),
            asyncio.create_task(keep_at("looking", known.keep_looking)),
            asyncio.create_task(keep_at("versions", lambda: readiness.keep_finding(_probe_home(state)))),
        ]
        try:
            yield
        finally:
            await drain.close()
            await runs.end_all()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            heartbeat.close()
            forest.close()

    app = ExecutorApp(
        routes=make_routes((*operations, *document_routes(described)), service_guard(settings.token())),
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=lifespan,
    )
    app.runs, app.drain = runs, drain
    return app


def _executor_id(settings: ExecutorSettings, state: StateDir) -> str:
    """The configured one, else the one of this state directory, made once."""
    if settings.executor_id is not None:
        return settings.executor_id
    if not state.executor_id.exists():
        write_whole(state.executor_id, f"exec_{token_hex(8)}")
    return state.executor_id.read_text().strip()


def _containment(settings: ExecutorSettings, state: StateDir) -> Containment:
    """Our own files, other runs' workspaces and snapshots, and file credentials are no engine's business."""
    settings.workspaces().mkdir(mode=0o700, parents=True, exist_ok=True)
    # what is not there yet is not hidden from an engine that is already at work when it comes
    for folder in filter(None, (settings.snapshot_folder(), settings.credentials_dir)):
        _make_or_leave(folder)
    ours = (state.root, settings.workspaces(), settings.credentials_dir, settings.snapshot_folder(), *settings.private_paths)
    needed = (settings.engines_dir,)
    return containment(settings.containment, settings.bwrap, filter(None, ours), filter(None, needed))


def _make_or_leave(folder: Path) -> None:
    """It may be another's to make, or stand on a disk that is not there yet."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        log.warning("containment.not_made", path=str(folder), reason=error.strerror)


def _cgroups(settings: ExecutorSettings, state: StateDir) -> Cgroups:
    found = cgroups(settings.cgroup, settings.memory_limit_bytes, state.mark, settings.guard_pid)
    found.sweep()
    if found.reason:
        say = log.info if settings.memory_limit_bytes is None else log.warning
        say("cgroups.none" if found.root is None else "cgroups.without_memory", reason=found.reason)
    return found


def _probe_home(state: StateDir) -> Path:
    """Where an engine may write when it is asked for its version."""
    home = state.root / "probe"
    home.mkdir(mode=0o700, exist_ok=True)
    return home
