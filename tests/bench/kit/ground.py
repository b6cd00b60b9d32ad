"""The ground benchmarks stand on: one durable PostgreSQL, fresh databases, and processes that play a role. All end with it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from control_plane.storage.migrate import migrate

ROOT = Path(__file__).parents[3]
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
# As an operator would have it: every commit reaches the disk. Only checkpoints are moved out of the way.
SETTINGS = ("max_wal_size=4GB", "checkpoint_timeout=1h", "shared_buffers=128MB")


@dataclass(frozen=True, slots=True)
class Database:
    dsn: str
    server_pid: int


@dataclass(frozen=True, slots=True)
class Role:
    """A process that serves at ``port``."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ground:
    """Whoever opens it closes it; everything started on it ends then, last first."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self._owned = ExitStack()
        self._server: tuple[str, int] | None = None

    def close(self) -> None:
        self._owned.close()

    def folder(self) -> Path:
        """A temporary folder, deleted at the end."""
        made = Path(tempfile.mkdtemp(prefix="runyard-bench-"))
        made.chmod(0o711)
        self._owned.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    def scaled(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @asynccontextmanager
    async def database(self, migrated: bool = True) -> AsyncGenerator[Database]:
        """Fresh; dropped afterwards."""
        server, pid = self._server = self._server or await self._start_server()
        name = f"bench_{uuid4().hex}"
        await _execute(server, f"CREATE DATABASE {name}")
        dsn = urlsplit(server)._replace(path=f"/{name}").geturl()
        try:
            if migrated:
                await migrate(dsn)
            yield Database(dsn, pid)
        finally:
            await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")

    async def _start_server(self) -> tuple[str, int]:
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        command = [sys.executable, "-m", "runyard.local_stack.postgres", "--state-dir", str(self.folder()), "--discard", *options]
        owner = self._started(command, stdout=subprocess.PIPE)
        assert owner.stdout is not None
        dsn = (await asyncio.to_thread(owner.stdout.readline)).decode().strip()
        assert dsn, "PostgreSQL did not start; its reason is on stderr"
        connection = await asyncpg.connect(dsn)
        try:
            backend = await connection.fetchval("SELECT pg_backend_pid()")
            return dsn, parent_of(backend)
        finally:
            await connection.close()

    def _started(
        self, command: list[str], environment: dict[str, str] | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        given = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=given, stdout=stdout, stderr=stderr)
        self._owned.callback(_ended, process)
        return process

    async def role(self, play: Callable[..., None], **told: Any) -> Role:
        """``play(port=…, **told)`` in a process of its own, once it takes connections. It plays until it is ended."""
        port = free_port()
        told = {"port": port, **told}
        role = Role(
            self._started([sys.executable, "-m", "tests.bench.kit.role", play.__module__, play.__name__, json.dumps(told)]), port
        )
        await serving(role.process, port)
        return role

    async def service(self, *command: str, port: int, environment: dict[str, str]) -> Role:
        """One of our services, as an operator starts it."""
        process = self._started([sys.executable, "-m", *command], environment, stderr=subprocess.DEVNULL)
        await serving(process, port)
        return Role(process, port)

    def end(self, role: Role) -> None:
        """Before the ground's own end."""
        _ended(role.process)


async def serving(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert process.poll() is None, f"a process of the benchmark ended with {process.returncode}"
            assert time.monotonic() < deadline, "a process of the benchmark does not serve"
            await asyncio.sleep(0.02)  # polling a port with a bound
            continue
        writer.close()
        return


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        await connection.execute(statement, timeout=60)
    finally:
        await connection.close(timeout=30)
