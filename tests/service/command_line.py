"""The ``runyard`` command as a process of its own, as a shell would start it. Not a test."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from tests.service.fake_api import KEY, FakeApi

BOUND_SECONDS = 30


@dataclass
class Ran:
    status: int
    stdout: str
    stderr: str


def environment_of(api: FakeApi | None, home: Path) -> dict[str, str]:
    """A shell's, which knows ``api`` only."""
    server = {} if api is None else {"RUNYARD_URL": api.url, "RUNYARD_API_KEY": KEY}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNYARD_")}
    return {**environment, **server, "XDG_STATE_HOME": str(home), "NO_COLOR": "1"}


async def start(api: FakeApi | None, *arguments: str, home: Path, stdin: int = DEVNULL, stdout: int = PIPE) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runyard.cli.main", *arguments, stdin=stdin, stdout=stdout, stderr=PIPE,
        env=environment_of(api, home),
    )  # fmt: skip


async def ended(process: Process) -> Ran:
    async with asyncio.timeout(BOUND_SECONDS):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, stdout.decode(), stderr.decode())


async def runyard(api: FakeApi | None, *arguments: str, home: Path) -> Ran:
    return await ended(await start(api, *arguments, home=home))


async def told(process: Process, text: str) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(BOUND_SECONDS):
        async for line in process.stderr:
            if text in line.decode():
                return
    raise AssertionError(f"it ended without saying {text!r}")
