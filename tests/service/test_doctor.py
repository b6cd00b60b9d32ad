"""``runyard doctor`` on three prepared machines: without any engine, with engines that nobody signed in, with keys."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.credentials import CREDENTIALS
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import Provider
from tests.service.fake_api import KEY, FakeApi, serving

BOUND_SECONDS = 60
VERSIONS = {"codex": "0.169.0", "claude": "2.1.197", "opencode": "1.18.33", "gemini": "0.61.0", "qwen": "0.24.4"}
PROVIDERS = {
    "codex": "codex-app-server", "claude": "claude-code", "opencode": "opencode", "gemini": "gemini-cli", "qwen": "qwen-code",
}  # fmt: skip
KEYS = {"OPENAI_API_KEY": "sk-openai-0123456789", "ANTHROPIC_API_KEY": "sk-anthropic-0123456789"}
SAYS = {"codex": "codex-cli {}", "claude": "{} (Claude Code)"}
NOT_TAKEN = ("OPENROUTER_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "CODEX_HOME")
KNOWN = {name for each in CREDENTIALS.values() for name in each.names}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A home with nothing in it."""
    (tmp_path / "engines").mkdir()
    return tmp_path


def install_engines(machine: Path) -> None:
    """Where their npm packages put them, which is where an executor takes them from."""
    for name, version in VERSIONS.items():
        place = INSTALLS[Provider(PROVIDERS[name])].globs[0].replace("*", "x64")
        install(machine / "engines" / place, SAYS.get(name, "{}").format(version))


def install(program: Path, says: str) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)


async def ran(machine: Path, *arguments: str, **variables: str) -> tuple[int | None, str]:
    """Its exit status and what it prints; no engine of this machine is on its PATH, no credential in its environment."""
    not_kept = {*KNOWN, *NOT_TAKEN, "DATABASE_URL", "EXECUTOR_ENGINES_DIR"}
    kept = {name: value for name, value in os.environ.items() if name not in not_kept and not name.startswith("RUNYARD_")}
    places = {"PATH": "/usr/bin:/bin", "HOME": str(machine), "XDG_STATE_HOME": str(machine / "state")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runyard.cli.main", "doctor", *arguments, cwd=machine, stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
        env={**kept, **places, "RUNYARD_ENGINES_DIR": str(machine / "engines"), **variables},
    )  # fmt: skip
    async with asyncio.timeout(BOUND_SECONDS):
        stdout, stderr = await process.communicate()
    assert stderr == b""
    return process.returncode, stdout.decode()


async def doctor(machine: Path, *arguments: str, **variables: str) -> str:
    status, report = await ran(machine, *arguments, **variables)
    assert status == 0, report
    return report


async def found(machine: Path, **variables: str) -> dict[str, Any]:
    return json.loads(await doctor(machine, "--json", **variables))


async def test_without_any_engine_only_the_scripted_one_can_run(machine: Path) -> None:
    report = await found(machine)
    assert report["canRun"] == ["scripted"]
    assert report["credentials"] == []
    engines = report["engines"]
    assert {name: engines[name]["reason"] for name in VERSIONS} == dict.fromkeys(VERSIONS, "not installed")
    assert not any(engine["installed"] or engine["ready"] for engine in engines.values())
    assert engines["iflow"]["reason"].startswith("its vendor closed it")


async def test_engines_that_nobody_signed_in_are_told_what_each_needs(machine: Path) -> None:
    install_engines(machine)
    report = await found(machine)
    assert report["canRun"] == ["scripted"]
    for name, version in VERSIONS.items():
        engine = report["engines"][name]
        assert (engine["installed"], engine["version"], engine["ready"], engine["credentials"]) == (True, version, False, [])
        wanted = " or ".join(CREDENTIALS[Provider(PROVIDERS[name])].keys)
        assert engine["reason"] == f"no credentials: set {wanted}"


async def test_with_keys_those_engines_can_run_that_they_are_for(machine: Path) -> None:
    install_engines(machine)
    report = await found(machine, **KEYS)
    assert report["credentials"] == ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"]
    assert report["canRun"] == ["codex-app-server", "claude-code", "opencode", "qwen-code", "scripted"]
    assert report["engines"]["codex"]["credentials"] == ["OPENAI_API_KEY"]
    assert report["engines"]["gemini"]["reason"] == "no credentials: set GEMINI_API_KEY or GOOGLE_API_KEY"
    assert report["engines"]["codex"]["reason"] is None


async def test_a_credential_file_signs_in_as_well_as_a_key(machine: Path) -> None:
    install_engines(machine)
    login = machine / "credentials" / "gemini" / "oauth_creds.json"
    login.parent.mkdir(parents=True)
    login.write_text('{"refresh_token": "never-shown-0123456789"}')
    report = await found(machine, EXECUTOR_CREDENTIALS_DIR=str(machine / "credentials"))
    assert report["canRun"] == ["gemini-cli", "scripted"]
    assert report["engines"]["gemini"]["credentials"] == ["gemini/oauth_creds.json"]
    assert "never-shown" not in json.dumps(report)


async def test_the_three_machines_are_told_apart_in_words_too(machine: Path) -> None:
    bare = await doctor(machine)
    install_engines(machine)
    unsigned = await doctor(machine)
    signed = await doctor(machine, **KEYS)
    assert _line(bare, "codex") == "· codex               not installed"
    assert _line(unsigned, "codex").startswith("✗ codex               no credentials: set OPENAI_API_KEY or CODEX_API_KEY")
    assert _line(signed, "codex").startswith("✓ codex               0.169.0 · ")
    assert [_line(each, "can run here").split("  ")[-1].strip() for each in (bare, unsigned)] == ["scripted", "scripted"]
    assert "codex-app-server, claude-code, opencode, qwen-code, scripted" in _line(signed, "can run here")
    assert not any(key in signed for key in KEYS.values())


def _line(report: str, name: str) -> str:
    return next(line for line in report.splitlines() if line[2:].startswith(name))


async def test_root_is_warned_of_what_an_engine_could_read(machine: Path) -> None:
    warned = (await found(machine))["warnings"]
    assert [text.split(":")[0] for text in warned] == (["this is root"] if os.geteuid() == 0 else [])
    assert ("this is root" in await doctor(machine)) == (os.geteuid() == 0)


async def test_an_engine_that_no_executor_would_find_is_not_installed(machine: Path) -> None:
    install(machine / "engines" / "node_modules" / ".bin" / "codex", "codex-cli 0.169.0")
    assert (await found(machine, **KEYS))["engines"]["codex"]["reason"] == "not installed"


async def test_an_engine_whose_version_no_executor_would_understand_is_not_ready(machine: Path) -> None:
    install_engines(machine)
    install(machine / "engines" / INSTALLS[Provider.CODEX_APP_SERVER].globs[0].replace("*", "x64"), "another 0.169.0")
    engine = (await found(machine, **KEYS))["engines"]["codex"]
    assert (engine["ready"], engine["reason"]) == (False, "did not say its version (exit status 0)")


async def test_only_what_an_engine_can_sign_in_with_is_told_as_a_credential(machine: Path) -> None:
    assert (await found(machine, **dict.fromkeys(NOT_TAKEN, "set")))["credentials"] == []


async def test_a_database_that_is_named_needs_no_programs_here(machine: Path) -> None:
    assert (await ran(machine, PG_BIN="/nowhere"))[0] == 1
    assert (await ran(machine, PG_BIN="/nowhere", DATABASE_URL="postgresql://somewhere"))[0] == 0


async def test_why_a_stack_is_not_up_or_not_ready_stands_beside_its_address(machine: Path) -> None:
    parts = {"database": {"ready": False}, "manager": {"ready": True}, "providers": []}
    dead = {"executorId": "executor-2", "ready": False, "draining": None, "reason": "no answer"}
    refuse = {"/api/system/readiness": (503, {"ready": False, **parts, "executors": [dead]})}
    async with serving(FakeApi(refuse=refuse)) as api:
        unready = await doctor(machine, "--url", api.url, "--key", KEY)
        api.refuse = {}
        refused = await doctor(machine, "--url", api.url, "--key", "ry_wrong")
    assert _line(unready, "  database") == "✗   database          does not answer"
    assert _line(unready, "  executor executor-2").endswith("no answer")
    assert _line(refused, "stack") == f"✗ stack               {api.url} · no valid key"
    gone = await doctor(machine, "--url", api.url, "--key", KEY)
    assert _line(gone, "stack").startswith(f"· stack               {api.url} · no answer from")


@pytest.mark.parametrize("answer", [(404, {"detail": "Not Found"}), (200, {"hello": "world"})])
async def test_another_web_server_at_the_address_is_no_stack(machine: Path, answer: tuple[int, dict[str, Any]]) -> None:
    async with serving(FakeApi(refuse={"/api/system/readiness": answer})) as other:
        status, report = await ran(machine, "--json", "--url", other.url, "--key", KEY, PG_BIN="/nowhere")
    assert (status, json.loads(report)["stack"]["reachable"]) == (1, False)
