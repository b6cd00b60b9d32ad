"""Makes what ``docker-compose.yml`` reads from files: three secrets, and an empty ``provider.env`` where there is none.

What exists is left as it is, and no value is printed. The folder is closed to everybody else; the files in it are readable,
because each is mounted into containers whose services run as a user of their own.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
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
    (folder / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "secrets").chmod(0o700)
    wanted = {folder / "secrets" / name: (f"{secrets.token_urlsafe(32)}\n", 0o644) for name in NAMES}
    wanted[folder / "provider.env"] = ("", 0o600)
    return [path for path, (text, mode) in wanted.items() if _make(path, text, mode)]


def _make(path: Path, text: str, mode: int) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask says
        file.write(text)
    return True


if __name__ == "__main__":
    sys.exit(main())
