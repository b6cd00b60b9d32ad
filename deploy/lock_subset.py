"""Prints the part of ``requirements.lock`` that some extras or groups of ``pyproject.toml`` need, hashes and all.

So an image installs from the one lock without carrying all of it, and no second lock can disagree. What needs what is
written in the lock's own ``# via`` lines; the build proves the part whole with ``pip check``. Standard library only: it
runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==")


def main() -> int:
    lines = subset((ROOT / "requirements.lock").read_text(), wanted((ROOT / "pyproject.toml").read_text(), sys.argv[1:]))
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def wanted(pyproject: str, parts: Iterable[str]) -> set[str]:
    """The distributions that ``parts`` name: ``base`` (what every service needs), an extra, a group, or a distribution."""
    document = tomllib.loads(pyproject)
    project = document["project"]
    known = {**document["dependency-groups"], **project["optional-dependencies"], "base": project["dependencies"]}
    return {_name(requirement) for part in parts for requirement in known.get(part, [part])}


def subset(lock: str, names: set[str]) -> list[str]:
    """The lock's lines for ``names`` and all they need. Raises ``LookupError`` for a name the lock does not hold."""
    pins = dict(_pins(lock))
    if missing := names - pins.keys():
        raise LookupError(f"not in the lock: {', '.join(sorted(missing))}")
    chosen = set(names)
    while more := {name for name, (_, needed_by) in pins.items() if name not in chosen and needed_by & chosen}:
        chosen |= more
    return [line for name, (lines, _) in pins.items() if name in chosen for line in lines]


def _pins(lock: str) -> Iterable[tuple[str, tuple[list[str], set[str]]]]:
    """Of every pin: its name, its lines without comments, and who needs it."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock):
        if found := PIN.match(block):
            lines = block.rstrip().split("\n")
            comments = [line.strip(" #").removeprefix("via").strip() for line in lines if _is_comment(line)]
            yield _name(found[1]), ([line for line in lines if not _is_comment(line)], {_name(each) for each in comments if each})


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _name(requirement: str) -> str:
    """The normalised name of a distribution: of ``uvicorn[standard]>=0.54`` it is ``uvicorn``."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~;( ]", requirement.strip(), maxsplit=1)[0]).lower()


if __name__ == "__main__":
    sys.exit(main())
