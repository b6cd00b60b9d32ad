"""The owner of a local stack: starts Postgres and the services in order, keeps them running, stops them in reverse.

It holds no data and no run: whatever it is killed with, its children end with it and the next start goes on from their files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx

from runyard.local_stack.environment import secret
from runyard.local_stack.keeper import Keeper, Say
from runyard.local_stack.ports import Ports, choose_ports
from runyard.local_stack.postgres import LocalPostgres
from runyard.local_stack.postgres_place import PostgresError
from runyard.local_stack.ready_file import READY, ReadyFiles
from runyard.local_stack.service_process import ServiceProcess
from runyard.local_stack.services import Service, Tier, service_table
from runyard.local_stack.stack import Secrets, StackError, StackOptions, keep_secrets, lock_state_dir

REFRESH_SECONDS = 0.1
LOG_CHECK_SECONDS = 5.0
STOP_POLL_SECONDS = 0.02
# A stop takes five seconds at most: how long each tier is waited for before the next is asked, and when patience ends for all.
STOP_SECONDS = {Tier.CONTROL_PLANE: 1.5, Tier.MANAGER: 0.5, Tier.EXECUTOR: 4.0}
SERVICES_STOP_SECONDS = 4.0
POSTGRES_STOP_SECONDS = 0.6
# A killed supervisor's services end by themselves, but not at once.
PORTS_SECONDS = 6.0

MakeServices = Callable[[Path, Ports, Secrets, str], Sequence[Service]]
OnUp = Callable[[dict[str, Any]], None]


class _KeptPostgres:
    """The embedded server as a ``Kept``."""

    name = "postgres"

    def __init__(self, server: LocalPostgres) -> None:
        self._server = server

    @property
    def pid(self) -> int | None:
        return self._server.pid

    @property
    def exit_status(self) -> int | None:
        return None if self._server.is_alive() else 1

    def launch(self) -> None:
        try:
            self._server.launch()
        except PostgresError as error:
            raise StackError(str(error)) from error

    def kill(self) -> None:
        self._server.kill()

    def last_words(self) -> str:
        return self._server.log_tail()

    async def is_ready(self) -> bool:
        try:
            return self._server.is_ready()
        except PostgresError:
            return False

    async def answers(self) -> bool:
        return True


class Supervisor:
    """``run`` it in the main thread: its children end with the thread that started them.

    ``on_up`` gets the ready document once; ``say`` gets a line for a person whenever something died.
    """

    def __init__(self, options: StackOptions, say: Say, on_up: OnUp, services: MakeServices = service_table) -> None:
        self._options = options
        self._say = say
        self._on_up = on_up
        self._make_services = services
        self._state_dir = options.state_dir.resolve()
        self._ready = ReadyFiles([self._state_dir / READY, *([options.ready_file] if options.ready_file else [])])
        self._postgres: LocalPostgres | None = None
        self._processes: list[ServiceProcess] = []

    def run(self) -> None:
        """Until SIGINT, SIGTERM or SIGHUP. Raises ``StackError`` when the stack cannot be had; nothing of it is left then."""
        self._state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)  # passed through by the database's user
        with lock_state_dir(self._state_dir):
            self._ready.remove()
            asyncio.run(self._until_signalled(keep_secrets(self._state_dir)))

    async def _until_signalled(self, secrets: Secrets) -> None:
        asked = asyncio.Event()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if sig is not signal.SIGHUP or signal.getsignal(sig) is not signal.SIG_IGN:  # nohup: the terminal may go
                asyncio.get_running_loop().add_signal_handler(sig, asked.set)
        async with httpx.AsyncClient(trust_env=False) as client:
            work = asyncio.ensure_future(self._work(secrets, client))
            waiting = asyncio.ensure_future(asked.wait())
            try:
                await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                work.cancel()
                await asyncio.wait({work, waiting})
                try:
                    self._ready.remove()
                finally:
                    await self._stop()
            with suppress(asyncio.CancelledError):
                work.result()

    async def _work(self, secrets: Secrets, client: httpx.AsyncClient) -> None:
        ports = await _ports_soon(self._options)
        database_url, keepers = await self._database()
        table = self._make_services(self._state_dir, ports, secrets, database_url)
        self._processes = [ServiceProcess(service, self._state_dir, client) for service in table]
        for _, tier in groupby(sorted(self._processes, key=_tier), key=_tier):
            of_tier = [Keeper(process, self._say) for process in tier]
            await _all_up(of_tier)
            keepers += of_tier
        document = self._document(secrets, database_url)
        self._ready.show(document)
        self._on_up(document)
        async with asyncio.TaskGroup() as group:
            for keeper in keepers:
                group.create_task(keeper.keep())
            group.create_task(self._refresh(secrets, database_url))

    async def _database(self) -> tuple[str, list[Keeper]]:
        named = secret("DATABASE_URL")
        if url := self._options.database_url or named:
            return url, []
        try:
            self._postgres = LocalPostgres(self._state_dir)
            keeper = Keeper(_KeptPostgres(self._postgres), self._say)
            await keeper.bring_up()
        except PostgresError as error:
            raise StackError(str(error)) from error
        return self._postgres.dsn, [keeper]

    async def _refresh(self, secrets: Secrets, database_url: str) -> None:
        """The ready file follows the pids, and logs stay bounded; a disk that refuses that is no reason to end the stack."""
        checked_at, told = time.monotonic(), ""
        while True:
            try:
                self._ready.show(self._document(secrets, database_url))
                if time.monotonic() - checked_at >= LOG_CHECK_SECONDS:
                    checked_at = time.monotonic()
                    self._bound_logs()
                told = ""
            except OSError as error:
                if str(error) != told:
                    told = str(error)
                    self._say(told)
            await asyncio.sleep(REFRESH_SECONDS)

    def _bound_logs(self) -> None:
        for process in self._processes:
            process.bound_log()
        if self._postgres is not None:
            self._postgres.bound_log()

    def _document(self, secrets: Secrets, database_url: str) -> dict[str, Any]:
        api_url = next(each.service.url for each in self._processes if each.service.tier is Tier.CONTROL_PLANE)
        services: list[dict[str, Any]] = [
            {"name": each.name, "pid": each.shown_pid(), "url": each.service.url} for each in self._processes
        ]
        if self._postgres is not None:
            services.insert(0, {"name": "postgres", "pid": self._postgres.pid, "url": database_url})
        return {
            "apiUrl": api_url, "portalUrl": f"{api_url}/", "apiKey": secrets.admin_key, "databaseUrl": database_url,
            "serviceToken": secrets.service_token, "pid": os.getpid(), "services": services,
        }  # fmt: skip

    async def _stop(self) -> None:
        """From the top down, each tier at once; whoever is late is killed with all below it."""
        deadline = time.monotonic() + SERVICES_STOP_SECONDS
        for tier, group in groupby(sorted(self._processes, key=_tier, reverse=True), key=_tier):
            of_tier = list(group)
            for process in of_tier:
                process.ask_to_end()
            await _gone(of_tier, min(deadline, time.monotonic() + STOP_SECONDS[tier]))
        await _gone(self._processes, deadline)
        for process in self._processes:
            process.kill_tree()
        if self._postgres is not None:
            self._postgres.stop(within=POSTGRES_STOP_SECONDS)


def _tier(process: ServiceProcess) -> Tier:
    return process.service.tier


async def _ports_soon(options: StackOptions) -> Ports:
    deadline = time.monotonic() + PORTS_SECONDS
    while True:
        try:
            return choose_ports(options)
        except StackError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(REFRESH_SECONDS)


async def _all_up(keepers: Sequence[Keeper]) -> None:
    """Raises the first failure itself, not a group of them."""
    ups = [asyncio.ensure_future(keeper.bring_up()) for keeper in keepers]
    try:
        await asyncio.gather(*ups)
    finally:
        for up in ups:
            up.cancel()
        await asyncio.gather(*ups, return_exceptions=True)


async def _gone(processes: Sequence[ServiceProcess], deadline: float) -> None:
    while True:
        if not any(process.is_alive for process in processes) or time.monotonic() > deadline:
            return
        await asyncio.sleep(STOP_POLL_SECONDS)


def say_on_stderr(line: str) -> None:
    """Nobody listens: then it is not said."""
    with suppress(OSError):
        sys.stderr.write(f"runyard: {line}\n")
        sys.stderr.flush()
