"""An empty forest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from executor.processes.process_tree import Forest


@pytest.fixture
async def forest() -> AsyncIterator[Forest]:
    forest = Forest("mark")
    yield forest
    forest.close()
