"""Schemathesis against a live service: the calls its own OpenAPI document allows, and calls it must refuse."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

HOOKS = Path(__file__).with_name("fuzzing_hooks.py")
SEED = 20_260_101
BOUND_SECONDS = 1800

# What no schema can say: 400 is a cursor that names no place, and whether one does is known only to the log or the list.
SETTINGS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 429, "5xx"]
"""


# A test run tries chance values and chains of calls. Every border of every schema is some thousand calls: ``make fuzz``.
QUICK = ("fuzzing", "stateful")
THOROUGH = ("examples", "coverage", *QUICK)


def depth(usual: int) -> tuple[int, Sequence[str]]:
    """Cases per operation and phases: ``usual`` quick ones in a test run, ``RUNYARD_FUZZ_EXAMPLES`` of all for a deeper look."""
    deep = os.environ.get("RUNYARD_FUZZ_EXAMPLES")
    return (usual, QUICK) if deep is None else (int(deep), THOROUGH)


async def faults(url: str, key: str, folder: Path, *, without: Collection[str], usual: int = 5, **environment: str) -> str:
    """What Schemathesis found, as it tells it; "" when it found nothing. ``without``: operation ids that are tested elsewhere.

    Data that must be taken and data that must be refused, and every check but the one of required headers: no operation has
    one beside the key, and that is what ``ignored_auth`` looks at. No NUL: that no text may hold one is nothing a schema of a few
    words can say (test_answers.py). The same seed asks the same. ``environment`` is for the hooks.
    """
    cases, phases = depth(usual)
    config = folder / "schemathesis.toml"
    config.write_text(SETTINGS)
    told_to = {**os.environ, "NO_PROXY": "127.0.0.1", "SCHEMATHESIS_HOOKS": str(HOOKS), **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--seed", str(SEED), "--mode", "all", "--max-examples", str(cases),
        "--phases", ",".join(phases),
        "--checks", "all", "--exclude-checks", "missing_required_header", "--continue-on-failure", "--request-timeout", "20",
        "--generation-database", "none", "--generation-allow-x00", "false", "--suppress-health-check", "all",
        "--warnings", "off", "--no-color", *(word for name in without for word in ("--exclude-operation-id", name)),
        cwd=folder, stdout=PIPE, stderr=STDOUT, env=told_to,
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            told, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return "" if process.returncode == 0 else told.decode(errors="replace")
