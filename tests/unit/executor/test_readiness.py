from __future__ import annotations

import asyncio
import errno
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from executor.engines import readiness as module
from executor.engines.credentials import CredentialStore
from executor.engines.readiness import Readiness, growing_waits
from executor.processes.process_tree import Forest
from shared.contracts.credentials import CREDENTIALS, Credentials
from shared.contracts.installs import Install
from shared.contracts.providers import Capabilities, Provider, ReadinessCategory
from tests.e2e.kit import processes_with
from tests.unit.executor.trees import OUR_MARK

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


def installed(folder: Path, script: str) -> Install:
    program = folder / "node_modules" / "engine" / "cli"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Install("no-such-engine", ("node_modules/engine/cl?",), pinned="1.2.3")


async def found(forest: Forest, folder: Path, install: Install) -> Readiness:
    readiness = Readiness({CODEX: Engine(install)}, folder, EMPTY, forest, OUR_MARK)
    await readiness.find_versions(folder)
    return readiness


async def test_an_engine_under_the_engines_folder_is_found_and_asked_for_its_version(forest: Forest, tmp_path: Path) -> None:
    readiness = await found(forest, tmp_path, installed(tmp_path, 'echo "engine v1.2.4 $HOME"'))
    answer = readiness.of(CODEX)
    assert (answer.installed, answer.version, answer.pinned_version) == (True, "1.2.4", "1.2.3")
    assert answer.readiness_category is ReadinessCategory.READY
    assert readiness.executable(CODEX) == str(tmp_path / "node_modules" / "engine" / "cli")


@pytest.mark.parametrize(("script", "status"), [("echo 1.2.3; exit 1", 1), ("echo nothing", 0), ("kill -9 $$", -9)])
async def test_an_engine_that_does_not_say_its_version_is_unhealthy_and_not_asked_again(
    forest: Forest, tmp_path: Path, script: str, status: int
) -> None:
    readiness = await found(forest, tmp_path, installed(tmp_path, f"echo x >> {tmp_path}/asked\n{script}"))
    answer = readiness.of(CODEX)
    assert answer.readiness_category is ReadinessCategory.RUNTIME_UNHEALTHY
    assert answer.blocking_reason == f"no-such-engine did not say its version (exit status {status})"
    assert not await readiness.find_versions(tmp_path)
    assert (tmp_path / "asked").read_text() == "x\n"


async def test_a_program_that_cannot_be_run_is_unhealthy(forest: Forest, tmp_path: Path) -> None:
    install = installed(tmp_path, "")
    (tmp_path / "node_modules" / "engine" / "cli").write_text("no program")
    readiness = await found(forest, tmp_path, install)
    assert readiness.of(CODEX).readiness_category is ReadinessCategory.RUNTIME_UNHEALTHY


@pytest.mark.parametrize("lack", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ETXTBSY])
async def test_an_engine_that_the_machine_could_not_start_for_now_is_asked_again(
    forest: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: int
) -> None:
    async def refused(*_given: object) -> object:
        raise OSError(lack, "not now")

    readiness = Readiness({CODEX: Engine(installed(tmp_path, "echo 1.2.3"))}, tmp_path, EMPTY, forest, OUR_MARK)
    with monkeypatch.context() as for_now:
        for_now.setattr(forest, "plant", refused)
        assert await readiness.find_versions(tmp_path)
    assert readiness.of(CODEX).blocking_reason == "no-such-engine could not be started: not now; it is asked again"
    assert not await readiness.find_versions(tmp_path)
    assert readiness.of(CODEX).readiness_category is ReadinessCategory.READY


# Says nothing while a file tells that the machine is loaded.
SLOW = "test -e {0}/loaded && sleep 300 &\nwait\necho 1.2.3"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test can sit through."""
    for name, seconds in {"VERSION_SECONDS": 0.2, "PATIENT_SECONDS": 10, "AGAIN_SECONDS": 0.05}.items():
        monkeypatch.setattr(module, name, seconds)


@pytest.mark.usefixtures("hurried")
async def test_an_engine_that_was_too_slow_says_so_and_comes_back_when_it_answers(forest: Forest, tmp_path: Path) -> None:
    (tmp_path / "loaded").touch()
    readiness = Readiness({CODEX: Engine(installed(tmp_path, SLOW.format(tmp_path)))}, tmp_path, EMPTY, forest, OUR_MARK)
    assert await readiness.find_versions(tmp_path)
    answer = readiness.of(CODEX)
    assert (answer.readiness_category, answer.version) == (ReadinessCategory.RUNTIME_UNHEALTHY, None)
    assert answer.blocking_reason == "no-such-engine did not answer in 0.2 s when asked for its version; it is asked again"
    (tmp_path / "loaded").unlink()
    async with asyncio.timeout(20):
        await readiness.keep_finding(tmp_path)
    answer = readiness.of(CODEX)
    assert (answer.readiness_category, answer.version, answer.blocking_reason) == (ReadinessCategory.READY, "1.2.3", None)


@pytest.mark.usefixtures("hurried")
async def test_an_engine_that_is_not_waited_for_leaves_no_process(forest: Forest, tmp_path: Path) -> None:
    await found(forest, tmp_path, installed(tmp_path, "sleep 300 & wait"))
    assert processes_with("HOME", str(tmp_path)) == []


def test_an_engine_that_stays_silent_is_asked_ever_less_often() -> None:
    assert list(islice(growing_waits(), 8)) == [15, 30, 60, 120, 240, 480, 600, 600]


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
    readiness = Readiness({CODEX: engine}, tmp_path, CredentialStore(own, tmp_path / "credentials"), forest, OUR_MARK)
    await readiness.find_versions(tmp_path)
    answer = readiness.of(CODEX)
    assert (answer.installed, answer.readiness_category) == (True, ReadinessCategory.ENVIRONMENT_NOT_READY)
    assert "OPENAI_API_KEY" in (answer.blocking_reason or "")
    assert "codex/auth.json" in (answer.blocking_reason or "")
    own["OPENAI_API_KEY"] = "sk-1"
    assert readiness.of(CODEX).readiness_category is ReadinessCategory.READY, "a key that came later needs no restart"
