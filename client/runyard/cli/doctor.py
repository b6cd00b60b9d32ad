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
from runyard.local_stack.environment import credentials_present
from runyard.local_stack.postgres_place import PostgresError, major_version, postgres_binaries
from shared.contracts.credentials import CREDENTIALS, Credentials
from shared.contracts.providers import CLOSED, Provider, provider_named

MIN_PYTHON = (3, 11)
MIN_POSTGRES = 15
ENGINES = ("codex", "claude", "opencode", "gemini", "iflow", "qwen")
ENGINE_FOLDERS = ("node_modules/.bin", "*/node_modules/.bin", "bin")
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
    try:
        folder = postgres_binaries()
        version = major_version(folder)
    except PostgresError as error:
        return {"ok": False, "reason": str(error)}
    return {"ok": version >= MIN_POSTGRES, "version": version, "binaries": str(folder)}


async def _engine(name: str) -> Json:
    path = _find_engine(name)
    if path is None:
        return {"installed": False}
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        return {"installed": True, "path": path, "version": None, "reason": f"does not run: {error.strerror}"}
    try:
        output, _ = await asyncio.wait_for(process.communicate(), VERSION_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return {"installed": True, "path": path, "version": None, "reason": f"no version within {VERSION_SECONDS:.0f} s"}
    said = re.search(r"\d+\.\d+\.\d+\S*", output.decode(errors="replace"))
    if said is not None and process.returncode == 0:
        return {"installed": True, "path": path, "version": said[0]}
    return {"installed": True, "path": path, "version": None, "reason": f"exit status {process.returncode}"}


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


def _find_engine(name: str) -> str | None:
    """The pinned one before whatever is on PATH."""
    folder = Path(os.environ.get("RUNYARD_ENGINES_DIR") or "engines")
    pinned = (path for pattern in ENGINE_FOLDERS for path in sorted(folder.glob(f"{pattern}/{name}")))
    return next((str(path.absolute()) for path in pinned if os.access(path, os.X_OK)), None) or shutil.which(name)


async def _stack(url: str | None, key: str | None) -> Json:
    try:
        found_url, found_key = find_server(url, key)
    except RunyardUnreachableError as error:
        return {"reachable": False, "reason": str(error)}
    try:
        async with Runyard(found_url, found_key) as runyard:
            chain = await runyard.readiness()
    except RunyardUnreachableError as error:
        return {"reachable": False, "reason": str(error)}
    except RunyardApiError as error:
        return {"reachable": True, "url": found_url, "ready": False, "reason": str(error)}
    return {"reachable": True, "url": found_url, "ready": bool(chain.get("ready")), "chain": chain}


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
    line(stack.get("ready") if stack["reachable"] else None, "stack", stack.get("url") or stack["reason"])
    chain: Json = stack.get("chain") or {}
    for provider in chain.get("providers", []):
        ready = provider.get("readinessCategory") == "ready"
        line(ready or None, f"  {provider.get('provider')}", provider.get("blockingReason") or provider.get("version") or "ready")
