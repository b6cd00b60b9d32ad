"""``runyard doctor``: what of a Runyard is here and what is missing. It changes nothing and shows no secret, only names."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runyard.api import Json, Runyard, RunyardApiError, RunyardUnreachableError
from runyard.cli.exits import Exit
from runyard.cli.server import find_server
from runyard.cli.show import brief
from runyard.local_stack.environment import credentials_present, secret
from runyard.local_stack.postgres_place import PostgresError, major_version, postgres_binaries
from runyard.local_stack.stack import StackError
from shared.contracts.credentials import CREDENTIALS, Credentials
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import CLOSED, Provider, provider_named
from shared.engine_programs import engines_dir, executable_of

MIN_PYTHON = (3, 11)
MIN_POSTGRES = 15
ENGINES = ("codex", "claude", "opencode", "gemini", "iflow", "qwen")
VERSION_SECONDS = 15.0


async def examine(url: str | None, key: str | None, as_json: bool) -> Exit:
    """0 when a stack can be started here or one is up; what else is missing is only told.

    ``engines`` and ``canRun`` are about this shell, as a stack started from it would see them; ``stack`` about one that is up.
    """
    engines = await asyncio.gather(*(_engine(name) for name in ENGINES))
    judged = {name: _judged(name, engine) for name, engine in zip(ENGINES, engines, strict=True)}
    found: Json = {
        "python": {"version": platform.python_version(), "ok": sys.version_info >= MIN_PYTHON},
        "postgres": await asyncio.to_thread(_postgres),
        "engines": judged,
        "credentials": credentials_present(),
        "canRun": [*(engine["provider"] for engine in judged.values() if engine["ready"]), Provider.SCRIPTED.value],
        "stack": await _stack(url, key),
        "warnings": list(_warnings()),
    }
    found["ok"] = found["python"]["ok"] and (found["postgres"]["ok"] or found["stack"]["reachable"])
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return Exit.SUCCESS if found["ok"] else Exit.ERROR


def _warnings() -> Iterator[str]:
    """What works and should not be so."""
    if os.geteuid() == 0:
        wrapped = "" if shutil.which("bwrap") else ", and there is no bubblewrap here"
        yield f"this is root: an engine that no sandbox holds could read all of the machine, the services' secrets too{wrapped}"


def _postgres() -> Json:
    """The database a stack started here would have: the one that is named, else the embedded one."""
    try:
        if secret("DATABASE_URL"):
            return {"ok": True, "version": None, "binaries": None, "reason": "the one that DATABASE_URL names, not looked at"}
        folder = postgres_binaries()
        version = major_version(folder)
    except (PostgresError, StackError) as error:
        return {"ok": False, "reason": str(error)}
    return {"ok": version >= MIN_POSTGRES, "version": version, "binaries": str(folder)}


async def _engine(name: str) -> Json:
    """As an executor would find it and ask it."""
    install = INSTALLS[provider_named(name)]
    path = executable_of(install, engines_dir())
    if path is None:
        return {"installed": False}
    try:
        process = await asyncio.create_subprocess_exec(
            path, *install.version_argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        return {"installed": True, "path": path, "version": None, "reason": f"does not run: {error.strerror}"}
    try:
        output, _ = await asyncio.wait_for(process.communicate(), VERSION_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"installed": True, "path": path, "version": None, "reason": f"no version within {VERSION_SECONDS:.0f} s"}
    said = re.search(install.version_pattern, output.decode(errors="replace"))
    if said is not None and process.returncode == 0:
        return {"installed": True, "path": path, "version": said[1]}
    reason = f"did not say its version (exit status {process.returncode})"
    return {"installed": True, "path": path, "version": None, "reason": reason}


def _judged(name: str, engine: Json) -> Json:
    """Whether a stack started here could run it, and if not, the first thing that is missing."""
    provider = provider_named(name)
    table = CREDENTIALS[provider]
    signs_in = [key for key in table.keys if os.environ.get(key)] + _files_of(table)
    reason = CLOSED.get(provider) or engine.get("reason")
    if reason is None and not engine["installed"]:
        reason = "not installed"
    if reason is None and not signs_in:
        reason = f"no credentials: set {' or '.join(table.keys)}"
    return {**engine, "provider": provider.value, "credentials": signs_in, "ready": reason is None, "reason": reason}


def _files_of(table: Credentials) -> list[str]:
    """Those that are there; whether an engine can sign in with them, its executor says."""
    folder = os.environ.get("EXECUTOR_CREDENTIALS_DIR")
    return [file.source for file in table.files if folder and (Path(folder) / file.source).is_file()]


async def _stack(url: str | None, key: str | None) -> Json:
    """``reachable``: a Runyard answers there, whatever it says; another web server is none."""
    try:
        found_url, found_key = find_server(url, key)
    except RunyardUnreachableError as error:
        return {"reachable": False, "reason": str(error)}
    found: Json = {"reachable": False, "url": found_url, "ready": False}
    try:
        runyard = Runyard(found_url, found_key)
    except (RunyardUnreachableError, RunyardApiError) as error:
        return {**found, "reason": str(error)}
    try:
        async with runyard:
            chain = await runyard.readiness()
    except RunyardUnreachableError as error:
        return {**found, "reason": str(error)}
    except RunyardApiError as error:
        return {**found, "reachable": error.code is not None, "reason": str(error)}
    if "ready" not in chain:
        return {**found, "reason": "what answers there is no Runyard"}
    return {**found, "reachable": True, "ready": bool(chain["ready"]), "chain": chain}


def _unready(chain: Json) -> Iterator[tuple[str, str]]:
    """The parts of a stack that are not ready, and why, as far as it is known."""
    for name in ("database", "manager"):
        part: Json = chain.get(name) or {}
        if not part.get("ready"):
            yield name, part.get("reason") or "does not answer"
    for executor in chain.get("executors", []):
        if not executor.get("ready") or executor.get("draining"):
            name = f"executor {executor.get('executorId') or ''}".strip()
            yield name, executor.get("reason") or ("is draining" if executor.get("draining") else "does not answer")
    if chain.get("manager", {}).get("ready") and not chain.get("executors"):
        yield "executors", "none is known to the manager"


def _print(found: Json) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def line(ok: bool | None, name: str, text: Any) -> None:
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}[ok]
        console.print(Text.assemble((f"{mark} ", style), (f"{name:<20}", "bold"), brief(text)))

    line(found["python"]["ok"], "python", found["python"]["version"])
    postgres = found["postgres"]
    line(postgres["ok"], "postgres", postgres.get("reason") or f"{postgres['version']} in {postgres['binaries']}")
    for name, engine in found["engines"].items():
        facts = [engine["reason"], engine.get("version"), engine.get("path")]
        line(engine["ready"] if engine["installed"] else None, name, " · ".join(fact for fact in facts if fact))
    line(bool(found["credentials"]) or None, "credentials", ", ".join(found["credentials"]) or "none in this environment")
    line(None, "can run here", ", ".join(found["canRun"]))
    for warning in found["warnings"]:
        line(False, "warning", warning)
    stack = found["stack"]
    said = " · ".join(each for each in (stack.get("url"), stack.get("reason")) if each)
    line(stack["ready"] if stack["reachable"] else None, "stack", said)
    chain: Json = stack.get("chain") or {}
    for name, why in _unready(chain) if chain else ():
        line(False, f"  {name}", why)
    for provider in chain.get("providers", []):
        ready = provider.get("readinessCategory") == "ready"
        line(ready or None, f"  {provider.get('provider')}", provider.get("blockingReason") or provider.get("version") or "ready")
