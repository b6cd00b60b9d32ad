"""What every test may ask for: a PostgreSQL server per worker, and fresh databases made from one migrated template."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

# A test's data need not survive the machine.
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "autovacuum_naptime=10min")
SERVER_STOP_SECONDS = 60
# The same on every machine, and pids that mean something outside; tests/engines/test_bubblewrap.py asks for it by itself.
environ.setdefault("EXECUTOR_CONTAINMENT", "none")
# Started in the background, or by nohup, we are to ignore these. What we ignore our children would ignore too, and some are sent
# them; a handler that does nothing is not inherited.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, lambda _number, _frame: None)


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A server's superuser DSN: ``RUNYARD_TEST_DATABASE_URL``, else an embedded server that ends with this process."""
    given = environ.get("RUNYARD_TEST_DATABASE_URL")
    if given:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="runyard-tests-"))
    folder.chmod(0o711)
    command = [sys.executable, "-m", "runyard.local_stack.postgres", "--state-dir", str(folder), "--discard", *FAST]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            dsn = server.stdout.readline().strip()
            assert dsn, "the embedded PostgreSQL did not start; its reason is on stderr"
            yield dsn
            server.terminate()
            server.wait(SERVER_STOP_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_template(postgres_dsn: str) -> Iterator[str]:
    """The name of a migrated database nobody connects to."""
    with _made_database(postgres_dsn) as dsn:
        if find_spec("control_plane.storage.migrate"):
            from control_plane.storage.migrate import migrate

            _finish(lambda: migrate(dsn))
        yield urlsplit(dsn).path.removeprefix("/")


@pytest.fixture
def database(postgres_dsn: str, database_template: str) -> Iterator[str]:
    """The DSN of a fresh, migrated database of this test's own."""
    with _made_database(postgres_dsn, database_template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_database(postgres_dsn: str, database_template: str) -> Iterator[str]:
    """The same for all tests of a module together."""
    with _made_database(postgres_dsn, database_template) as dsn:
        yield dsn


@contextmanager
def _made_database(server: str, template: str | None = None) -> Generator[str]:
    name = f"test_{uuid4().hex}"
    _finish(lambda: _execute(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else "")))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        _finish(lambda: _execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=30)


def _finish(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """In a loop and a thread of its own: a fixture must not touch the loop of the test that asked for it."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result()
