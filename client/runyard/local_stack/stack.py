"""What a local stack is asked to be, and where its files stand. No process is started here."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SECRETS = "secrets.json"
LOCK = "supervisor.lock"
LOCK_SECONDS = 0.5  # longer than anybody looks whether it is held
LOOK_SECONDS = 0.01


class StackError(Exception):
    """The local stack cannot be had; the message is for a person."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """``port`` 0: free ports everywhere; None: the defaults. ``database_url`` None: what the environment names, else embedded."""

    state_dir: Path
    port: int | None = None
    executors: int = 1
    control_planes: int = 1
    managers: int = 1
    ready_file: Path | None = None
    database_url: str | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    service_token: str
    admin_key: str


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/runyard``, by default ``~/.local/state/runyard``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "runyard"


def lock_state_dir(state_dir: Path) -> IO[str]:
    """The lock, held until it is closed. Raises ``StackError`` when another supervisor has it."""
    lock = (state_dir / LOCK).open("a+")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise StackError(f"another runyard up works in {state_dir}") from None
        else:
            return lock
        time.sleep(LOOK_SECONDS)


def has_supervisor(state_dir: Path) -> bool:
    """Whether one lives there now: whatever ended it, its lock went with it."""
    try:
        with (state_dir / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def keep_secrets(state_dir: Path) -> Secrets:
    """The stack's secrets, made on the first call; the file is readable by its owner only."""
    file = state_dir / SECRETS
    if not file.exists():
        made = {"serviceToken": secrets.token_urlsafe(32), "adminKey": f"ry_admin_{secrets.token_hex(24)}"}
        write_private(file, json.dumps(made) + "\n")
    try:
        kept = json.loads(file.read_text())
        return Secrets(str(kept["serviceToken"]), str(kept["adminKey"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(f"{file} cannot be read; delete it to have new secrets made") from error


def write_private(file: Path, text: str) -> None:
    """Replace the file whole, mode 0600: a reader sees the old text or the new one."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    new.replace(file)
