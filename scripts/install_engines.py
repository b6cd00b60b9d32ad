"""Installs the engine CLIs of ``engines/package.json`` and proves that each answers with its pinned version.

Quick when everything is right already: it then runs each engine's ``--version`` and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from executor.adapters import ADAPTERS  # noqa: E402
from shared.contracts.installs import Install  # noqa: E402

NPM_SECONDS = 900
VERSION_SECONDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=ROOT / "engines", help="where package.json stands and node_modules goes")
    parser.add_argument("--check", action="store_true", help="install nothing, only tell what is missing")
    arguments = parser.parse_args()
    folder: Path = arguments.dir
    installs = {str(name): adapter.install for name, adapter in ADAPTERS.items() if adapter.install.pinned}
    wrong = {name: problem for name, install in installs.items() if (problem := _problem(folder, install))}
    if wrong and not arguments.check:
        subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=NPM_SECONDS)
        wrong = {name: problem for name, install in installs.items() if (problem := _problem(folder, install))}
    for name, install in installs.items():
        print(f"{name}: {wrong.get(name) or install.pinned}")
    return 1 if wrong else 0


def _problem(folder: Path, install: Install) -> str | None:
    """None when the engine is there in its pinned version."""
    pins = set(json.loads((folder / "package.json").read_text())["dependencies"].values())
    if install.pinned not in pins:
        return f"the adapter was recorded with {install.pinned}, and package.json pins {', '.join(sorted(pins))}"
    found = [path for pattern in install.globs for path in sorted(folder.glob(pattern))]
    if not found:
        return "not installed"
    try:
        told = subprocess.run([found[0], *install.version_argv], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {error}"
    version = re.search(install.version_pattern, told.stdout)
    if version is None:
        return "did not say its version"
    return None if version[1] == install.pinned else f"is {version[1]}, and the adapter was recorded with {install.pinned}"


if __name__ == "__main__":
    sys.exit(main())
