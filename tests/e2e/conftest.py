"""One stack for all end-to-end tests of a worker; a test that breaks a part on purpose starts its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Stack, running_stack


@pytest.fixture(scope="session")
def session_stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="runyard-e2e-"))
    folder.chmod(0o711)
    try:
        with running_stack(folder / "state", "--executors", "2") as stack:
            yield stack
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def stack(session_stack: Stack) -> AsyncIterator[Stack]:
    """The shared stack with a client of this test's event loop."""
    fresh = Stack(session_stack.process, session_stack.ready_file, session_stack.state_dir)
    async with fresh.client:
        yield fresh


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder for a stack of the test's own."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-own-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
