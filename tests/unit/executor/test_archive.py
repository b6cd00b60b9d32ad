from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from executor.adapters.session_state import SESSION_STATE
from executor.snapshots import archive as module
from executor.snapshots.archive import ArchiveError, Halted, exchange, pack, unpack
from executor.workspaces.workspace import Workspace
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.providers import Provider

STATE = (".engine/sessions", ".engine/*.db*")
MANY = 1024 * 1024


def always() -> bool:
    return True


def made(root: Path, key: str = "w") -> Workspace:
    workspace = Workspace.at(root, key)
    workspace.make()
    return workspace


def filled(root: Path) -> Workspace:
    workspace = made(root)
    (workspace.work / "src").mkdir()
    (workspace.work / "src/run.sh").write_text("#!/bin/sh\n")
    (workspace.work / "src/run.sh").chmod(0o755)
    (workspace.work / "empty").mkdir(mode=0o500)
    (workspace.work / "out").symlink_to("/etc/passwd")
    (workspace.work / os.fsdecode(b"no-utf8-\xff")).write_bytes(b"\0\xff")
    os.mkfifo(workspace.work / "pipe")
    sessions = workspace.home / ".engine/sessions/2026"
    sessions.mkdir(parents=True)
    (sessions / "s1.jsonl").write_text("said")
    for name in ("main.db", "main.db-wal", "auth.json", "config.toml"):
        (workspace.home / ".engine" / name).write_text(name)
    (workspace.home / ".cache").write_text("x")
    return workspace


def packed(workspace: Workspace, target: Path, max_bytes: int = MANY) -> str:
    return pack(workspace, STATE, target, max_bytes, always).sha256


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_it_holds_files_folders_and_links_and_of_home_what_sessions_are_made_of(tmp_path: Path) -> None:
    packed(filled(tmp_path), tmp_path / "a")
    assert names(tmp_path / "a") == [
        "work", "work/empty", "work/no-utf8-\udcff", "work/out", "work/src", "work/src/run.sh",
        "home", "home/.engine", "home/.engine/main.db", "home/.engine/main.db-wal", "home/.engine/sessions",
        "home/.engine/sessions/2026", "home/.engine/sessions/2026/s1.jsonl",
    ]  # fmt: skip


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    workspace = filled(tmp_path)
    first = pack(workspace, STATE, tmp_path / "a", MANY, always)
    assert pack(workspace, STATE, tmp_path / "b", MANY, always) == first
    assert (tmp_path / "a").stat().st_size == first.size
    (workspace.work / "src/run.sh").chmod(0o644)
    assert pack(workspace, STATE, tmp_path / "c", MANY, always).sha256 != first.sha256


def test_what_was_packed_is_laid_out_as_it_was(tmp_path: Path) -> None:
    workspace = filled(tmp_path)
    os.utime(workspace.work / "src/run.sh", (1_700_000_000, 1_700_000_000))
    packed(workspace, tmp_path / "a")
    unpack(tmp_path / "a", tmp_path / "laid", MANY, always)
    work = tmp_path / "laid/work"
    script = (work / "src/run.sh").stat()
    assert (script.st_mode & 0o777, int(script.st_mtime)) == (0o755, 1_700_000_000)
    assert os.readlink(work / "out") == "/etc/passwd"
    assert (work / "empty").stat().st_mode & 0o777 == 0o500
    assert (work / os.fsdecode(b"no-utf8-\xff")).read_bytes() == b"\0\xff"
    assert not (work / "pipe").exists()


def test_what_is_laid_replaces_files_and_sessions_and_leaves_the_rest_of_home(tmp_path: Path) -> None:
    packed(filled(tmp_path), tmp_path / "a")
    unpack(tmp_path / "a", tmp_path / "laid", MANY, always)
    other = made(tmp_path, "other")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (other.work / "stale").symlink_to(outside)
    (other.home / ".engine").mkdir()
    (other.home / ".engine/sessions").symlink_to(outside)
    (other.home / ".engine/config.toml").write_text("laid at this start")
    (other.home / ".engine/old.db").write_text("of another session")
    exchange(other, tmp_path / "laid", STATE)
    assert sorted(path.name for path in other.work.iterdir()) == ["empty", "no-utf8-\udcff", "out", "src"]
    assert (other.home / ".engine/sessions/2026/s1.jsonl").read_text() == "said"
    assert (other.home / ".engine/config.toml").read_text() == "laid at this start"
    assert not (other.home / ".engine/old.db").exists()
    assert (outside / "kept").read_text() == "kept", "nothing was reached through a link"


def test_a_folder_of_home_that_is_a_link_is_not_followed_in_either_direction(tmp_path: Path) -> None:
    workspace = made(tmp_path)
    outside = tmp_path / "outside"
    (outside / "sessions").mkdir(parents=True)
    (outside / "sessions/secret").write_text("x")
    (workspace.home / ".engine").symlink_to(outside)
    packed(workspace, tmp_path / "a")
    assert names(tmp_path / "a") == ["work", "home"]
    laid = filled(tmp_path / "full")
    packed(laid, tmp_path / "b")
    unpack(tmp_path / "b", tmp_path / "laid", MANY, always)
    exchange(workspace, tmp_path / "laid", STATE)
    assert (workspace.home / ".engine/main.db").read_text() == "main.db"
    assert sorted(path.name for path in outside.iterdir()) == ["sessions"]


def test_it_is_refused_when_it_is_too_large_or_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = filled(tmp_path)
    (workspace.work / "big").write_bytes(b"x" * 1000)
    with pytest.raises(ArchiveError, match="more than the 900 bytes"):
        packed(workspace, tmp_path / "a", 900)
    monkeypatch.setattr(module, "MAX_ENTRIES", 5)
    with pytest.raises(ArchiveError, match="more than the 5 files"):
        packed(workspace, tmp_path / "b")


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    workspace = made(tmp_path)
    (workspace.work / ("d/" * 199)).mkdir(parents=True)
    packed(workspace, tmp_path / "a")
    unpack(tmp_path / "a", tmp_path / "laid", MANY, always)
    assert (tmp_path / "laid/work" / ("d/" * 199)).is_dir()
    (workspace.work / ("d/" * 201)).mkdir(parents=True)
    with pytest.raises(ArchiveError, match="in each other"):
        packed(workspace, tmp_path / "b")


@pytest.mark.parametrize("calls", [0, 3])
def test_it_stops_when_nobody_waits_for_it(tmp_path: Path, calls: int) -> None:
    workspace = filled(tmp_path)
    packed(workspace, tmp_path / "whole")

    def soon_over() -> Callable[[], bool]:
        left = iter(range(calls))
        return lambda: next(left, None) is not None

    with pytest.raises(Halted):
        pack(workspace, STATE, tmp_path / "a", MANY, soon_over())
    with pytest.raises(Halted):
        unpack(tmp_path / "whole", tmp_path / "laid", MANY, soon_over())


def evil(path: Path, *members: tuple[str, bytes, str]) -> None:
    with gzip.open(path, "wb") as file, tarfile.open(mode="w|", fileobj=file) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content
            tar.addfile(info, io.BytesIO(content.encode()) if kind == tarfile.REGTYPE else None)


FOLDER, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", FILE, "x")],
        [("/tmp/out", FILE, "x")],
        [("other/out", FILE, "x")],
        [("work", FOLDER, ""), ("work/../../out", FILE, "x")],
        [("work", FOLDER, ""), ("work/l", LINK, "/tmp"), ("work/l/out", FILE, "x")],
        [("work", LINK, "/tmp"), ("work/out", FILE, "x")],
        [("work", FOLDER, ""), ("work/h", HARD, "/etc/passwd")],
        [("work", FOLDER, ""), ("work/p", tarfile.FIFOTYPE, "")],
        [("work", FOLDER, ""), ("work/a", LINK, "b"), ("work/a", FILE, "x")],
        [("work", FOLDER, ""), ("work/a", FILE, "x" * (MANY + 1))],
    ],
)
def test_an_archive_that_we_never_made_writes_nowhere_else(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    evil(tmp_path / "a", *members)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "laid", MANY, always)
    assert sorted(path.name for path in tmp_path.iterdir()) in (["a"], ["a", "laid"])
    assert not Path("/tmp/out").exists()


@pytest.mark.parametrize("content", [b"", b"no gzip at all", gzip.compress(b"no tar" * 200, mtime=0)[:-9]])
def test_bytes_that_are_no_archive_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "laid", MANY, always)


@pytest.mark.parametrize("provider", list(Provider))
def test_no_snapshot_holds_what_an_engine_signs_in_with(tmp_path: Path, provider: Provider) -> None:
    workspace = made(tmp_path)
    laid = [file.target for table in CREDENTIALS.values() for file in table.files]
    for target in laid:
        (workspace.home / target).parent.mkdir(parents=True, exist_ok=True)
        (workspace.home / target).write_text("secret")
    pack(workspace, SESSION_STATE[provider], tmp_path / "a", MANY, always)
    assert laid
    assert not {f"home/{target}" for target in laid} & set(names(tmp_path / "a"))
    assert b"secret" not in gzip.decompress((tmp_path / "a").read_bytes())
