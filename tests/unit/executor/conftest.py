"""An empty forest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from executor.processes.process_tree import Forest
from tests.unit.executor.trees import OUR_MARK


@pytest.fixture
async def forest() -> AsyncIterator[Forest]:
    forest = Forest(OUR_MARK)
    yield forest
    forest.close()
