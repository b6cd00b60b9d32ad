"""Runs an operator's script as an operator does: as a process, with an environment of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
BOUND_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    status: int
    stdout: str
    stderr: str


async def run_script(name: str, *arguments: str, **environment: str) -> Ended:
    """``python -m scripts.<name>``; nothing of a stack that may be up on this machine is seen."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RUNYARD_", "EXECUTOR_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"scripts.{name}", *arguments,
        cwd=ROOT, env={**clean, "XDG_STATE_HOME": "/nonexistent", **environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())
