from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest

from executor.adapters.base import File
from executor.workspaces import workspace as module
from executor.workspaces.workspace import Workspace, workspace_keys
from shared.errors import ErrorCode, RunyardError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.at(tmp_path, "w")
    workspace.make()
    return workspace


def test_its_directories_are_private_and_may_be_made_again(workspace: Workspace) -> None:
    workspace.make()
    for folder in (workspace.home, workspace.work, workspace.tmp):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("seconds", [1e12, -1e12])
def test_a_file_of_any_date_is_listed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    (workspace.work / "old").write_text("x")
    real = os.stat

    def dated(*given: Any, **named: Any) -> Any:  # few file systems keep such a date
        found = real(*given, **named)
        return os.stat_result([*found[:7], seconds, seconds, seconds]) if given[0] == "old" else found

    monkeypatch.setattr(module.os, "stat", dated)
    [listed] = workspace.files().items
    assert listed.modified_at.year == (9999 if seconds > 0 else 1)


@pytest.mark.parametrize("key", [".", ".."])
def test_a_key_cannot_leave_the_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(RunyardError):
        Workspace.at(tmp_path, key)


def test_files_are_written_private_and_over_what_stood_there(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (workspace.home / "link").symlink_to(outside)
    os.mkfifo(workspace.home / "pipe")
    (workspace.work / "hard").hardlink_to(outside)
    files = [File("home", "link", b"1"), File("home", "pipe", b"2"), File("workspace", "hard", b"3"), File("home", "a/b/c", b"4")]
    workspace.write(files)
    assert outside.read_text() == "untouched"
    assert [(workspace.home / name).read_bytes() for name in ("link", "pipe", "a/b/c")] == [b"1", b"2", b"4"]
    assert (workspace.home / "a/b/c").stat().st_mode & 0o777 == 0o600
    workspace.write(files)


def test_no_folder_is_reached_through_a_link(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (workspace.home / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(RunyardError) as refused:
        workspace.write([File("home", "folder/x", b"")])
    assert refused.value.code is ErrorCode.WORKSPACE_ERROR
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["", "home", "work", "tmp"])
def test_a_link_in_the_place_of_a_folder_goes_and_what_it_names_stays(workspace: Workspace, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace.base / name).rename(tmp_path / "old")
    (workspace.base / name).symlink_to(outside)
    workspace.make()
    workspace.write([File("home", "key", b"1"), File("workspace", "notes", b"2")])
    assert [path for path in (workspace.base, workspace.home, workspace.work, workspace.tmp) if path.is_symlink()] == []
    assert (workspace.home / "key").read_bytes() == b"1"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["", "home", "work", "tmp"])
def test_a_plain_file_in_the_place_of_a_folder_goes(workspace: Workspace, tmp_path: Path, name: str) -> None:
    (workspace.base / name).rename(tmp_path / "old")
    (workspace.base / name).write_text("in the way")
    workspace.make()
    assert workspace.tmp.is_dir()
    assert workspace.home.is_dir()


@pytest.mark.parametrize("name", ["", "home", "work"])
def test_nothing_is_written_or_read_through_a_link_that_comes_later(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Without bubblewrap another engine of this user may be at work meanwhile."""
    outside = tmp_path / "outside"
    for folder in ("", "home", "work"):
        (outside / folder).mkdir()
        (outside / folder / "key").write_text("untouched")
    (workspace.base / name).rename(tmp_path / "old")
    (workspace.base / name).symlink_to(outside)
    root: Literal["home", "workspace"] = "home" if name == "home" else "workspace"
    with pytest.raises(RunyardError):
        workspace.write([File(root, "key", b"ours")])
    assert {path.read_text() for path in outside.rglob("key")} == {"untouched"}
    if root == "workspace":
        assert workspace.files().items == []
        with pytest.raises(RunyardError):
            workspace.open("key")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_a_path_cannot_leave_the_workspace(workspace: Workspace, path: str) -> None:
    with pytest.raises(RunyardError):
        workspace.write([File("workspace", path, b"")])
    with pytest.raises(RunyardError):
        workspace.open(path)


def test_plain_files_are_listed_and_nothing_else(workspace: Workspace) -> None:
    workspace.write([File("workspace", "b/c", b"12"), File("workspace", "a", b"1"), File("home", "x", b"")])
    (workspace.work / "link").symlink_to("a")
    os.mkfifo(workspace.work / "pipe")
    assert [(file.path, file.bytes) for file in workspace.files().items] == [("a", 1), ("b/c", 2)]


def test_keys_are_listed_newest_first(tmp_path: Path) -> None:
    assert workspace_keys(tmp_path / "none") == []
    for age, key in enumerate(("new", "old")):
        Workspace.at(tmp_path, key).make()
        os.utime(tmp_path / key, (1_000 - age, 1_000 - age))
    assert workspace_keys(tmp_path) == ["new", "old"]


def test_a_file_is_never_missing_while_it_is_replaced(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write([File("home", "auth.json", b"old")])
    real = os.open

    def watched(path: str, *given: Any, **named: Any) -> int:
        assert (workspace.home / "auth.json").read_bytes() == b"old", "another attempt of the session reads it now"
        return real(path, *given, **named)

    monkeypatch.setattr(module.os, "open", watched)
    workspace.write([File("home", "auth.json", b"new")])
    monkeypatch.undo()
    assert [entry.name for entry in workspace.home.iterdir()] == ["auth.json"]
    assert (workspace.home / "auth.json").read_bytes() == b"new"


def test_all_files_are_listed_over_pages_whatever_their_names(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTED_FILES", 2)
    names = ("b", "a/z", "a/b/c", "a.b", "a-c/x", "a/b-c", "\udcff", "z\udc80/y", "\ue000", "c/ ")
    for name in names:
        (workspace.work / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.work / name).touch()
    pages = [workspace.files()]
    while (cursor := pages[-1].next_cursor) is not None and len(pages) < 10:
        pages.append(workspace.files(cursor))
    assert [len(page.items) for page in pages] == [2] * (len(names) // 2)
    seen = [file.path for page in pages for file in page.items]
    assert sorted(seen) == sorted(os.fsencode(name).decode(errors="replace") for name in names)


@pytest.mark.parametrize("cursor", ["a", "%", "é"])
def test_a_cursor_of_files_that_is_none_is_refused(workspace: Workspace, cursor: str) -> None:
    with pytest.raises(RunyardError, match="nextCursor"):
        workspace.files(cursor)
