"""Collects what the engine CLIs of this machine sign in with, and prepares it for an executor: one file of variables (0600)
and one directory of credential files (0700). Prints names and where they come from, never a value.

  docker compose reads the file as the executor's env_file; a shell reads it with: set -a; . .runyard/provider.env; set +a
  the executor reads the directory where EXECUTOR_CREDENTIALS_DIR says

exit status:
  0   prepared
  1   something is malformed or cannot be carried; the rest is prepared
  2   there is nothing to sign in with
  64  the arguments are wrong
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.arguments import Parser  # noqa: E402
from scripts.home_credentials import SOURCES, Found, look  # noqa: E402
from shared.contracts.credentials import CREDENTIALS  # noqa: E402
from shared.contracts.providers import Provider  # noqa: E402

FOLDER = Path(".runyard")
PREPARED, FAULTY, NOTHING = 0, 1, 2
# The same to a shell, to docker compose and to docker run; anything else is quoted, which the last of them does not know.
_BARE = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_REFERENCE = re.compile(rb"\{env:(\w+)\}")


@dataclass(slots=True)
class Engine:
    """What was found for one provider. ``values`` by name; ``files`` by their place in the directory."""

    provider: Provider
    name: str
    values: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    files: dict[str, bytes] = field(default_factory=dict[str, bytes], repr=False)
    sources: dict[str, str] = field(default_factory=dict[str, str])
    faults: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])

    @property
    def can_sign_in(self) -> bool:
        return bool(self.files) or any(name in CREDENTIALS[self.provider].keys for name in self.values)

    def take(self, found: Found) -> None:
        source = found.source
        if found.problem is not None:
            (self.missing if found.problem.endswith("_missing") else self.faults).append(found.problem)
            return
        for name, value in found.variables.items():
            if _line(name, value) is None:
                self.faults.append(f"{self.name}_{name}_cannot_be_carried")
                continue
            self.values[name], self.sources[name] = value, f"~/{source.path}"
        if found.content is not None and source.copy_to is not None:
            self.files[source.copy_to], self.sources[source.copy_to] = found.content, f"~/{source.path}"
            referred = sorted({name.decode() for name in _REFERENCE.findall(found.content)})
            self.missing += [f"{self.name}_env_{name}_missing" for name in referred]

    def told(self) -> dict[str, Any]:
        status = "malformed" if self.faults else "complete" if self.can_sign_in else "missing"
        return {
            "engine": self.name, "provider": self.provider.value, "status": status, "problems": [*self.faults, *self.missing],
            "variables": [{"name": name, "source": self.sources[name]} for name in sorted(self.values)],
            "files": [{"name": name, "source": self.sources[name]} for name in sorted(self.files)],
        }  # fmt: skip


def collect(home: Path) -> list[Engine]:
    """All engines, with each variable given to one of them only: two may call different keys by the same name."""
    engines: dict[Provider, Engine] = {}
    for source in SOURCES:
        engine = engines.setdefault(source.provider, Engine(source.provider, source.engine))
        engine.take(look(home, source))
    taken: list[Engine] = []
    for engine in engines.values():
        _yield_to(taken, engine)
        taken.append(engine)
    return taken


def _yield_to(others: Iterable[Engine], engine: Engine) -> None:
    """An engine's variables go as a whole or not at all: half of them would send its key to another one's endpoint."""
    for other in others:
        theirs = {*other.values, *(CREDENTIALS[other.provider].more if other.can_sign_in else ())}
        if any(name in theirs and other.values.get(name) != value for name, value in engine.values.items()):
            engine.faults.append(f"{engine.name}_variables_belong_to_{other.name}")
            engine.values.clear()
            return


def _line(name: str, value: str) -> str | None:
    """``NAME=value`` as a shell and docker compose read it alike; None for what no line can say to both, such as a line break."""
    if _BARE.fullmatch(value):
        return f"{name}={value}"
    if not value.isprintable() or "'" in value or value.endswith("\\"):
        return None
    return f"{name}='{value}'"


def write(engines: Sequence[Engine], env_file: Path, folder: Path) -> None:
    """Both anew: what a home no longer has is taken away. Raises ``OSError``."""
    lines = [line for engine in engines for name, value in engine.values.items() if (line := _line(name, value)) is not None]
    _private_folder(env_file.parent)
    _write_private(env_file, "".join(f"{line}\n" for line in sorted(set(lines))).encode())
    _private_folder(folder)
    folder.chmod(0o700)
    kept: Mapping[str, bytes] = {name: content for engine in engines for name, content in engine.files.items()}
    for source in SOURCES:
        if source.copy_to is None:
            continue
        target = folder / source.copy_to
        if source.copy_to in kept:
            _private_folder(target.parent)
            target.parent.chmod(0o700)
            _write_private(target, kept[source.copy_to])
        else:
            target.unlink(missing_ok=True)


def _private_folder(folder: Path) -> None:
    """0700 if it is made here; one that exists keeps its mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_private(target: Path, content: bytes) -> None:
    """0600 from its first byte on, and whole at once."""
    draft = target.with_name(f".{target.name}.{token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--home", type=Path, default=Path.home(), help="whose files are read; default: your own")
    parser.add_argument("--env-file", type=Path, default=FOLDER / "provider.env", help="default: %(default)s")
    parser.add_argument("--credentials-dir", type=Path, default=FOLDER / "credentials", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    arguments = parser.parse_args()
    engines = collect(arguments.home)
    try:
        write(engines, arguments.env_file, arguments.credentials_dir)
    except OSError as error:
        parser.error(f"cannot write {error.filename}: {error.strerror}")
    told = [engine.told() for engine in engines]
    if arguments.json:
        places = {"envFile": str(arguments.env_file), "credentialsDir": str(arguments.credentials_dir)}
        print(json.dumps({**places, "engines": told}, indent=2))
    else:
        _print(told)
        print(f"variables are in {arguments.env_file}, files in {arguments.credentials_dir}")
    if any(engine.faults for engine in engines):
        return FAULTY
    return PREPARED if any(engine.can_sign_in for engine in engines) else NOTHING


def _print(told: Sequence[Mapping[str, Any]]) -> None:
    for engine in told:
        print(f"{engine['status']:<9} {engine['engine']}")
        for each in (*engine["variables"], *engine["files"]):
            print(f"          {each['name']}  from {each['source']}")
        for problem in engine["problems"]:
            print(f"          {problem}")


if __name__ == "__main__":
    sys.exit(main())
