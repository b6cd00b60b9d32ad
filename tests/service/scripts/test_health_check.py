"""The health check against real managers and executors, each prepared to be well or unwell in one way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider
from tests.loopback import BOUND_SECONDS, unused_port
from tests.service.executor.kit import Outside, executor_outside
from tests.service.executor_manager.kit import Manager, manager_process
from tests.service.scripts.commands import ROOT, Ended, run_script
from tests.service.scripts.fake_codex import engines_in

CODEX = Provider.CODEX_APP_SERVER
KEY = "sk-of-the-health-check-0123456789"
NO_KEY = dict.fromkeys(CREDENTIALS[CODEX].names, "")


@asynccontextmanager
async def prepared(folder: Path, engines: Path | None, **environment: str) -> AsyncGenerator[tuple[Manager, Outside]]:
    """A manager and its executor, once the manager knows the version of what is installed."""
    places = {"EXECUTOR_ENGINES_DIR": str(engines)} if engines is not None else {}
    async with (
        executor_outside(folder, is_ready=True, **NO_KEY | places | environment) as executor,
        manager_process(str(executor.http.base_url), unused_port()) as here,
    ):
        async with asyncio.timeout(BOUND_SECONDS):
            while engines is not None and not (await _codex(here)).get("version"):
                await asyncio.sleep(0.05)  # polling a condition with a bound
        yield here, executor


async def _codex(here: Manager) -> dict[str, Any]:
    items = (await here.http.get("/api/providers")).json()["items"]
    return next((each for each in items if each["provider"] == CODEX), {})


async def check(here: Manager, *arguments: str) -> tuple[int, dict[str, Any]]:
    ended = await run_script("health_check", "--manager-url", here.url, "--json", *arguments)
    assert KEY not in ended.stdout + ended.stderr
    return ended.status, json.loads(ended.stdout)


async def test_a_stack_with_engine_and_key_is_ready(tmp_path: Path) -> None:
    async with prepared(tmp_path / "x", engines_in(tmp_path / "engines"), OPENAI_API_KEY=KEY) as (here, _executor):
        status, found = await check(here)
    assert (status, found["ready"], found["readinessCategory"], found["blockingReason"]) == (0, True, "ready", None)
    assert (found["provider"], found["failedChecks"], found["warnedChecks"]) == (CODEX, [], [])
    assert [each["status"] for each in found["checks"]] == ["pass"] * 4
    assert found["generatedAt"].endswith("Z")


async def test_a_stack_without_credentials_is_not_prepared_and_says_which_are_missing(tmp_path: Path) -> None:
    async with prepared(tmp_path / "x", engines_in(tmp_path / "engines")) as (here, _executor):
        status, found = await check(here, "--provider", "codex-cli")
    assert (status, found["ready"], found["readinessCategory"]) == (2, False, "environment_not_ready")
    assert found["failedChecks"] == [f"provider {CODEX}"]
    assert "OPENAI_API_KEY" in found["blockingReason"]


async def test_a_stack_whose_executor_is_dead_is_unhealthy_and_names_it(tmp_path: Path) -> None:
    async with prepared(tmp_path / "x", engines_in(tmp_path / "engines"), OPENAI_API_KEY=KEY) as (here, executor):
        os.kill(executor.pid, signal.SIGKILL)
        await asyncio.to_thread(executor.guard.wait, BOUND_SECONDS)
        status, found = await check(here)
    assert (status, found["ready"], found["readinessCategory"]) == (1, False, "runtime_unhealthy")
    assert "executors" in found["failedChecks"]
    assert "no answer from" in found["blockingReason"]


async def test_an_engine_that_is_not_installed_is_the_environments_lack(tmp_path: Path) -> None:
    async with prepared(tmp_path / "x", None, OPENAI_API_KEY=KEY, PATH="/usr/bin:/bin") as (here, _executor):
        status, found = await check(here)
    assert (status, found["blockingReason"]) == (2, f"provider {CODEX}: codex is not installed")


async def test_an_engine_that_is_broken_is_unhealthy(tmp_path: Path) -> None:
    engines = engines_in(tmp_path / "engines", "exit 3")
    async with (
        executor_outside(tmp_path / "x", is_ready=True, **NO_KEY, EXECUTOR_ENGINES_DIR=str(engines)) as executor,
        manager_process(str(executor.http.base_url), unused_port()) as here,
        asyncio.timeout(BOUND_SECONDS),
    ):
        while (await _codex(here)).get("readinessCategory") != "runtime_unhealthy":
            await asyncio.sleep(0.05)  # polling a condition with a bound
        status, found = await check(here)
    assert (status, found["readinessCategory"]) == (1, "runtime_unhealthy")
    assert "exit status 3" in found["blockingReason"]


async def test_one_executor_of_two_that_is_gone_is_a_warning_and_blocks_only_the_strict(tmp_path: Path) -> None:
    async with executor_outside(tmp_path / "x") as executor:
        nobody = f"http://127.0.0.1:{unused_port()}"
        async with manager_process(f"{executor.http.base_url},{nobody}", unused_port()) as here:
            status, found = await check(here, "--provider", "scripted")
            assert (status, found["ready"], found["warnedChecks"]) == (0, True, [f"executor {nobody}"])
            status, found = await check(here, "--provider", "scripted", "--strict")
            assert (status, found["ready"], found["readinessCategory"]) == (1, False, "runtime_unhealthy")


async def test_executors_that_only_the_manager_reaches_need_not_be_asked(tmp_path: Path) -> None:
    async with executor_outside(tmp_path / "x") as executor:
        port = unused_port()
        async with manager_process(str(executor.http.base_url), port) as here:
            status, found = await check(here, "--provider", "scripted", "--no-direct")
            assert (status, found["ready"]) == (0, True)
            os.kill(executor.pid, signal.SIGKILL)
            await asyncio.to_thread(executor.guard.wait, BOUND_SECONDS)
            async with asyncio.timeout(BOUND_SECONDS):
                while (await here.fleet())[0]["reachable"]:
                    await asyncio.sleep(0.05)  # polling a condition with a bound
            status, found = await check(here, "--provider", "scripted", "--no-direct")
            assert (status, found["readinessCategory"]) == (1, "runtime_unhealthy")
            assert "the manager does not reach it" in found["blockingReason"]


async def test_another_version_than_the_tested_one_is_a_warning(tmp_path: Path) -> None:
    engines = engines_in(tmp_path / "engines", "echo codex-cli 9.9.9")
    async with prepared(tmp_path / "x", engines, OPENAI_API_KEY=KEY) as (here, _executor):
        status, found = await check(here)
        assert (status, found["warnedChecks"]) == (0, [f"provider {CODEX}"])
        assert (await check(here, "--strict"))[0] == 2


async def test_a_manager_that_is_not_there_and_a_control_plane_that_is_not_there_are_both_named() -> None:
    nobody = f"http://127.0.0.1:{unused_port()}"
    ended = await run_script("health_check", "--manager-url", nobody, "--base-url", nobody)
    assert ended.status == 1
    assert [line.split(":")[0] for line in ended.stdout.splitlines()[:2]] == ["fail  manager", "fail  control plane"]


async def test_wrong_arguments_look_like_no_verdict() -> None:
    for wrong in (["--provider", "nobody"], ["--nonsense"]):
        assert (await run_script("health_check", *wrong)).status == 64


async def test_the_entry_point_finds_its_python_from_any_folder(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "scripts" / "provider-runtime-health-check.sh"), "--help", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await asyncio.wait_for(process.communicate(), BOUND_SECONDS)
    ended = Ended(process.returncode or 0, stdout.decode(), "")
    assert ended.status == 0
    assert "environment_not_ready" in ended.stdout
