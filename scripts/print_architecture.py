"""Prints the floors of ``docs/architecture.md`` from the import contracts, which are what holds them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser

from scripts.generated_parts import ROOT, Part, print_or_write, table

CONTRACTS = ROOT / ".importlinter"
SOURCES = {"runyard": ROOT / "client"}


def floors() -> str:
    """A row for every contract of layers, as it stands; a module that may be there and is not is left out."""
    parser = ConfigParser()
    parser.read_string(CONTRACTS.read_text("utf-8"))
    rows: list[tuple[str, ...]] = []
    for section in parser.sections():
        contract = parser[section]
        if contract.get("type") == "layers":
            containers = contract.get("containers", "").split()
            layers = [" ".join(_modules(line, containers)) for line in contract["layers"].strip().splitlines()]
            where = ", ".join(f"`{each}`" for each in containers) or "all"
            rows.append((where, contract["name"], " · ".join(f"`{layer}`" for layer in layers if layer)))
    return table(("in", "", "floors, top first"), rows)


def _modules(line: str, containers: list[str]) -> Iterator[str]:
    """The names of one floor; in brackets stands what not every container has."""
    for bracket, name in re.findall(r"(\(?)([\w.]+)\)?", line):
        if not bracket or any(_exists(f"{container}.{name}") for container in containers):
            yield name


def _exists(module: str) -> bool:
    path = SOURCES.get(module.partition(".")[0], ROOT).joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


PARTS = {"floors": Part("docs/architecture.md", floors)}

if __name__ == "__main__":
    sys.exit(print_or_write(PARTS, __doc__))
