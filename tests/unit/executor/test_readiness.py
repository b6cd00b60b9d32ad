from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor import readiness as module
from executor.adapters.base import Install
from executor.credentials import CredentialStore
from executor.process_tree import Forest
from executor.readiness import Readiness
from shared.contracts.credentials import CREDENTIALS, Credentials
from shared.contracts.providers import Capabilities, Provider, ReadinessCategory

CODEX = Provider.CODEX_APP_SERVER
NEEDS_NONE = Credentials()
EMPTY = CredentialStore({}, None)


class Engine:
    provider = CODEX
    capabilities = Capabilities()

    def __init__(self, install: Install, credentials: Credentials = NEEDS_NONE) -> None:
        self.install = install
        self.credentials = credentials

    def start(self, request: Any) -> Any: ...

    def resume(self, request: Any, session: str) -> Any: ...


@pytest.fixture
async def forest() -> AsyncIterator[Forest]:
    forest = Forest("mark")
    yield forest
    forest.close()


def installed(folder: Path, script: str) -> Install:
    program = folder / "node_modules" / "engine" / "cli"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Install("no-such-engine", ("node_modules/engine/cl?",), pinned="1.2.3")


async def found(forest: Forest, folder: Path, install: Install) -> Readiness:
    readiness = Readiness({CODEX: Engine(install)}, folder, EMPTY, forest, "mark")
    await readiness.find_versions(folder)
    return readiness


async def test_an_engine_under_the_engines_folder_is_found_and_asked_for_its_version(forest: Forest, tmp_path: Path) -> None:
    readiness = await found(forest, tmp_path, installed(tmp_path, 'echo "engine v1.2.4 $HOME"'))
    answer = readiness.of(CODEX)
    assert (answer.installed, answer.version, answer.pinned_version) == (True, "1.2.4", "1.2.3")
    assert answer.readiness_category is ReadinessCategory.READY
    assert readiness.executable(CODEX) == str(tmp_path / "node_modules" / "engine" / "cli")


@pytest.mark.parametrize("script", ["echo 1.2.3; exit 1", "echo nothing", "sleep 300"])
async def test_an_engine_that_does_not_say_its_version_is_unhealthy(
    forest: Forest, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERSION_SECONDS", 0.5)
    answer = (await found(forest, tmp_path, installed(tmp_path, script))).of(CODEX)
    assert answer.readiness_category is ReadinessCategory.RUNTIME_UNHEALTHY
    assert "version" in (answer.blocking_reason or "")


async def test_an_engine_that_is_nowhere_is_not_installed(forest: Forest, tmp_path: Path) -> None:
    answer = (await found(forest, tmp_path, Install("no-such-engine", ("x/*",)))).of(CODEX)
    assert (answer.installed, answer.version) == (False, None)
    assert answer.readiness_category is ReadinessCategory.ENVIRONMENT_NOT_READY


async def test_an_engine_on_the_path_is_found_there_and_a_built_in_one_is_this_python(forest: Forest, tmp_path: Path) -> None:
    assert (await found(forest, tmp_path, Install("sh"))).executable(CODEX) in ("/bin/sh", "/usr/bin/sh")
    assert (await found(forest, tmp_path, Install())).executable(CODEX) == sys.executable


async def test_an_engine_without_credentials_is_not_ready_and_names_what_would_do(forest: Forest, tmp_path: Path) -> None:
    own: dict[str, str] = {"OPENAI_BASE_URL": "https://gateway.test"}
    engine = Engine(installed(tmp_path, "echo 1.2.3"), CREDENTIALS[CODEX])
    readiness = Readiness({CODEX: engine}, tmp_path, CredentialStore(own, tmp_path / "credentials"), forest, "mark")
    await readiness.find_versions(tmp_path)
    answer = readiness.of(CODEX)
    assert (answer.installed, answer.readiness_category) == (True, ReadinessCategory.ENVIRONMENT_NOT_READY)
    assert "OPENAI_API_KEY" in (answer.blocking_reason or "")
    assert "codex/auth.json" in (answer.blocking_reason or "")
    own["OPENAI_API_KEY"] = "sk-1"
    assert readiness.of(CODEX).readiness_category is ReadinessCategory.READY, "a key that came later needs no restart"
