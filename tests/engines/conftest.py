"""Which tests of the engines that share one body are played: a slice, or with ``ALL=1`` each that an engine can do."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.engines.gemini_opencode_qwen import ROWS, SLICE


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Left out of the collection, not skipped: what does not belong to a run is no gap in it."""
    left_out = [item for item in items if not _belongs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _belongs(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "row" not in item.fixturenames:
        return True
    params: dict[str, Any] = getattr(item.callspec, "params", {}) if hasattr(item, "callspec") else {}
    needed = [mark.args[0] for mark in item.iter_markers("needs")]
    can = ROWS[params["row"]].adapter.capabilities
    return all(getattr(can, name) for name in needed) and (bool(os.environ.get("ALL")) or item.originalname in SLICE)
