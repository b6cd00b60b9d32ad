"""Finds an engine's program on this machine, the same for whoever starts it and whoever tells that it could. It runs nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shared.contracts.installs import Install


def engines_dir() -> Path | None:
    """Where the pinned engines are: what an operator set under either name, else the checkout we were started in."""
    given = os.environ.get("EXECUTOR_ENGINES_DIR") or os.environ.get("RUNYARD_ENGINES_DIR")
    folder = Path(given or "engines").absolute()
    return folder if given or folder.is_dir() else None


def executable_of(install: Install, engines_dir: Path | None) -> str | None:
    """Absolute path of an engine's program: under the engines folder, else on PATH; None when it is not installed."""
    if install.closed is not None:
        return None
    for pattern in install.globs if engines_dir is not None else ():
        for path in sorted((engines_dir or Path()).glob(pattern)):
            if os.access(path, os.X_OK) and path.is_file():
                return os.path.abspath(path)
    found = shutil.which(install.command) if install.command else None
    return os.path.abspath(found) if found else None
