"""A codex that is installed and can do nothing but say its version."""

from __future__ import annotations

from pathlib import Path

from executor.adapters import ADAPTERS
from shared.contracts.providers import Provider

CODEX = Provider.CODEX_APP_SERVER


def engines_in(folder: Path, says: str = "echo codex-cli 0.169.0") -> Path:
    """An engines folder whose codex can only say its version."""
    program = folder / ADAPTERS[CODEX].install.globs[0].replace("*", "linux")
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return folder
