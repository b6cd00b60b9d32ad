"""One stack for all end-to-end tests of a worker; a test that breaks a part on purpose starts its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.kit import Stack, running_stack


@contextmanager
def make_folder() -> Generator[Path]:
    """A folder for a stack; Postgres runs as another user, who must be able to pass through."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-e2e-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def session_stack() -> Iterator[Stack]:
    with make_folder() as folder, running_stack(folder / "state", "--executors", "2") as stack:
        yield stack


@pytest.fixture
async def stack(session_stack: Stack) -> AsyncIterator[Stack]:
    """The shared stack with a client of this test's event loop."""
    fresh = Stack(session_stack.process, session_stack.ready_file, session_stack.state_dir)
    async with fresh.client:
        yield fresh
