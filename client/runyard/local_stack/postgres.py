"""The owner of a local PostgreSQL: makes its data once, starts it, stops it, and repairs what a kill left behind.

One owner per data folder for the owner's life. The server listens on a Unix socket in a private folder and nowhere else,
and ends with its owner. This must never delete or overwrite a data folder, and never stop a server that is not ours.

``python -m runyard.local_stack.postgres --state-dir D`` runs one in the foreground: the DSN is its first line, and it ends
with its parent, on SIGTERM or on SIGINT.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

from runyard.local_stack.death_signal import die_with_parent, dies_with_parent
from runyard.local_stack.postgres_place import Place, PostgresError, choose_place, major_version, make_socket_folder

SUPERUSER = "runyard"
INITDB_SECONDS = 120.0
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
QUIT_SECONDS = 10.0
ORPHAN_SECONDS = 30.0
POLL_SECONDS = 0.02
MAX_LOG_BYTES = 8 * 1024 * 1024
BUILTIN_LOCALE_SINCE = 17
PROGRAMS = (b"postgres", b"initdb")  # also as a part: some systems wrap them under a longer name
SETTINGS = (
    "listen_addresses=", "unix_socket_permissions=0700", "max_connections=200", "shared_buffers=64MB",
    "logging_collector=off", "log_checkpoints=off",
)  # fmt: skip


class LocalPostgres:
    """``start`` and ``stop``, or in parts for an owner that must not block: ``launch``, then ``is_ready`` until true.

    ``settings`` are further ``name=value`` of the server. Everything raises ``PostgresError`` with a message for a person.
    """

    def __init__(self, state_dir: Path, settings: Sequence[str] = ()) -> None:
        self._settings = (*SETTINGS, *settings)
        self._place = choose_place(state_dir)
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> Place:
        return self._place

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def dsn(self) -> str:
        """``postgresql://runyard:<password>@/postgres?host=<socket folder>``; there is one after the first ``launch``."""
        password = (self._place.root / "password").read_text()
        return f"postgresql://{SUPERUSER}:{password}@/postgres?host={quote(str(self._place.sockets))}"

    def start(self) -> str:
        """Blocks until the server takes connections; gives its DSN. Call it from the main thread."""
        self.launch()
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if time.monotonic() > deadline:
                self.stop()
                raise PostgresError(f"PostgreSQL was not ready within {READY_SECONDS:.0f} s; see {self.log}")
            time.sleep(POLL_SECONDS)
        return self.dsn

    def launch(self) -> None:
        """Starts the server process; makes the data on the first start, and ends an orphan of a killed owner before.

        Call it from the main thread: the server ends with the thread that launched it.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("launch PostgreSQL from the main thread")
        self._own()
        if not (self._place.data / "PG_VERSION").exists():
            self._make_data()
        self._check_version()
        self._end_orphans()
        make_socket_folder(self._place)
        self.bound_log()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd="/",
                start_new_session=True, preexec_fn=dies_with_parent(signal.SIGINT), env=_environment(),
                user=self._place.user.uid, group=self._place.user.gid,
                extra_groups=None if self._place.user.uid is None else [],
            )  # fmt: skip

    def is_ready(self) -> bool:
        """Whether the launched server takes connections. Raises when it has ended instead, with the last of its log."""
        if not self.is_alive():
            raise PostgresError(f"PostgreSQL ended while starting:\n{self.log_tail()}")
        try:
            lines = (self._place.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # what pg_ctl waits for

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """What is committed is committed; the next launch recovers it."""
        if self._process is not None:
            self._process.kill()

    def interrupt(self) -> None:
        """Ask for a fast shutdown: open transactions are rolled back, connections closed."""
        if self._process is not None and self.is_alive():
            self._process.send_signal(signal.SIGINT)

    def stop(self, within: float = STOP_SECONDS) -> None:
        """A fast shutdown; after ``within`` seconds an immediate one, which the next start recovers from. Idempotent."""
        try:
            if self._process is not None:
                self.interrupt()
                _wait_or_signal(self._process, within, signal.SIGQUIT)
                _wait_or_signal(self._process, QUIT_SECONDS, signal.SIGKILL)
                self._process.wait(QUIT_SECONDS)
        finally:
            if self._lock is not None:
                shutil.rmtree(self._place.sockets, ignore_errors=True)
                self._lock.close()
                self._lock = None

    def discard(self) -> None:
        """Delete the data of a stopped server. For data nobody will want, such as a test's."""
        if self.is_alive():
            raise RuntimeError("stop PostgreSQL before its data is discarded")
        shutil.rmtree(self._place.root)

    @property
    def log(self) -> Path:
        return self._place.root / "log"

    def _command(self) -> list[str]:
        options = [part for setting in self._settings for part in ("-c", setting)]
        return [str(self._place.binaries / "postgres"), "-D", str(self._place.data), "-k", str(self._place.sockets), *options]

    def _own(self) -> None:
        if self._lock is not None:
            return
        lock = (self._place.root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise PostgresError(f"another process owns the database in {self._place.root}") from None
        self._lock = lock

    def _make_data(self) -> None:
        """Beside its place and then renamed: a killed initdb leaves nothing half-made."""
        new = self._place.root / "data.new"
        _end_all_in(new)
        shutil.rmtree(new, ignore_errors=True)
        made = self._place.user.run(
            str(self._place.binaries / "initdb"), "-D", str(new), "-U", SUPERUSER, f"--pwfile={self._password_file()}",
            "--auth=scram-sha-256", "--encoding=UTF8", *self._locale(), seconds=INITDB_SECONDS,
        )  # fmt: skip
        if made.returncode != 0:
            raise PostgresError(f"initdb failed:\n{made.stderr.strip()}")
        new.rename(self._place.data)

    def _locale(self) -> Sequence[str]:
        if major_version(self._place.binaries) >= BUILTIN_LOCALE_SINCE:
            return ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        return ("--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C",)

    def _password_file(self) -> Path:
        file = self._place.root / "password"
        if not file.exists():
            new = file.with_name("password.new")
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_urlsafe(24))
            self._place.user.own(new)
            new.rename(file)
        return file

    def _check_version(self) -> None:
        made_by = (self._place.data / "PG_VERSION").read_text().strip()
        ours = major_version(self._place.binaries)
        if made_by != str(ours):
            raise PostgresError(
                f"the data in {self._place.data} was made by PostgreSQL {made_by}, the binaries are {ours}: set PG_BIN to "
                f"{made_by}'s, or dump and restore into a new --state-dir"
            )

    def _end_orphans(self) -> None:
        """Ends a killed owner's server, and what a killed server left behind."""
        if self.is_alive():
            raise RuntimeError("PostgreSQL is already running")
        pid_file = self._place.data / "postmaster.pid"
        if sys.platform != "linux":
            if pid_file.exists():
                stop = (str(self._place.binaries / "pg_ctl"), "-D", str(self._place.data), "-m", "fast", "stop")
                self._place.user.run(*stop, seconds=2 * ORPHAN_SECONDS)
            return
        _end_all_in(self._place.data, leader=_first_line(pid_file))
        # What the file names now is no server of ours, perhaps a stranger under a reused number.
        pid_file.unlink(missing_ok=True)

    def bound_log(self) -> None:
        """Keeps the last ``MAX_LOG_BYTES`` beside it and begins anew; the server appends, so it need not know."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_name("log.1"))
            with self.log.open("r+b") as log:
                log.truncate(0)

    def log_tail(self) -> str:
        return self.log.read_bytes()[-2000:].decode(errors="replace").strip()


def _environment() -> dict[str, str]:
    """Nothing of ours that a server need not know; PG* variables of a person's shell would mislead it."""
    return {name: value for name, value in os.environ.items() if name in ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}


def _first_line(file: Path) -> str:
    try:
        return file.read_text().partition("\n")[0].strip()
    except FileNotFoundError:
        return ""


def _working_in(folder: Path) -> list[int]:
    """Living processes of a server whose working directory is ``folder``, as all of one are in its data folder.

    A number in a pid file proves nothing: it may have been given to someone else since. Nor does the folder alone: a person's
    shell or a backup may stand there. Without /proc: nobody.
    """
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder) and any(name in (entry / "comm").read_bytes() for name in PROGRAMS):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _end_all_in(folder: Path, leader: str = "") -> None:
    deadline = time.monotonic() + ORPHAN_SECONDS
    for pid in _working_in(folder):
        _signal(pid, signal.SIGINT if str(pid) == leader else signal.SIGQUIT)
    while left := _working_in(folder):
        if time.monotonic() > deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
            deadline = time.monotonic() + ORPHAN_SECONDS
        time.sleep(POLL_SECONDS)


def _signal(pid: int, sig: signal.Signals) -> None:
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def _wait_or_signal(process: subprocess.Popen[bytes], seconds: float, sig: signal.Signals) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(sig)


def main() -> int:
    """The exit status: 0 after a stop, 1 when the server could not be started or died."""
    parser = argparse.ArgumentParser(prog="python -m runyard.local_stack.postgres", description="A PostgreSQL in the foreground.")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("-c", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    parser.add_argument("--discard", action="store_true", help="delete the data at the end")
    given = parser.parse_args()
    stopping = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        stopping.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, on_signal)
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    try:
        return _run(LocalPostgres(given.state_dir, given.settings), stopping, parent, given.discard)
    except PostgresError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(server: LocalPostgres, stopping: threading.Event, parent: int, discard: bool) -> int:
    try:
        sys.stdout.write(server.start() + "\n")
        sys.stdout.flush()
        while server.is_alive() and os.getppid() == parent and not stopping.wait(0.2):
            pass
        died = not server.is_alive() and not stopping.is_set()
    finally:
        server.stop()
    if discard:
        server.discard()
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())
