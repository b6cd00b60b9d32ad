"""What is true of every adapter in the table."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import executor.adapters
from executor.adapters import ADAPTERS
from shared.contracts.providers import Provider

FOLDER = Path(executor.adapters.__file__).parent
PINS = json.loads((FOLDER.parent.parent / "engines" / "package.json").read_text())["dependencies"]
FORBIDDEN = {"asyncio", "httpx", "os", "socket", "subprocess", "threading", "time", "random", "datetime", "starlette"}


@pytest.mark.parametrize("provider", sorted(ADAPTERS))
def test_an_adapter_stands_under_its_own_name(provider: Provider) -> None:
    assert ADAPTERS[provider].provider is provider


@pytest.mark.parametrize("provider", sorted(name for name, adapter in ADAPTERS.items() if adapter.install.pinned))
def test_the_version_we_recorded_is_the_version_we_install(provider: Provider) -> None:
    install = ADAPTERS[provider].install
    assert install.pinned in PINS.values()
    assert re.compile(install.version_pattern).groups == 1


def test_every_engine_is_pinned_exactly() -> None:
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in PINS.values())


@pytest.mark.parametrize("module", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_adapter_does_no_io_and_has_no_clock(module: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert not imported & FORBIDDEN
