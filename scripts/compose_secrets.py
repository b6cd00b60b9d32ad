"""Makes what ``docker-compose.yml`` reads from files: three secrets, an empty ``provider.env`` where there is none, and a copy
of the credential files that ``bootstrap-local-provider-env.sh`` collected. Run it again after a bootstrap.

A secret that exists is left as it is, and no value is printed. The folder is closed to everybody else; the files in it are
readable, because they are mounted into containers whose services run as a user of their own.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("service_token", "admin_key", "database_password")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=ROOT / ".runyard", help="where secrets/ and provider.env go")
    for path in make_files(parser.parse_args().dir):
        print(f"made {path}")
    return 0


def make_files(folder: Path) -> list[Path]:
    """What had to be made: ``secrets/*`` in a folder of mode 0700, ``provider.env`` of mode 0600."""
    closed = folder / "secrets"
    closed.mkdir(mode=0o700, parents=True, exist_ok=True)
    closed.chmod(0o700)
    wanted = {closed / name: (f"{secrets.token_urlsafe(32)}\n".encode(), 0o644) for name in NAMES}
    wanted[folder / "provider.env"] = (b"", 0o600)
    made = [path for path, (content, mode) in wanted.items() if _make(path, content, mode)]
    return made + list(_copied(folder / "credentials", closed / "credentials"))


def _copied(source: Path, target: Path) -> Iterable[Path]:
    """The plain files below ``source``, anew below ``target``; what is there no more goes."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            continue
        if path.is_dir():
            copy.mkdir()
            copy.chmod(0o755)
        elif copy.parent.is_dir() and _make(copy, path.read_bytes(), 0o644):
            yield copy


def _make(path: Path, content: bytes, mode: int) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask says
        file.write(content)
    return True


if __name__ == "__main__":
    sys.exit(main())
