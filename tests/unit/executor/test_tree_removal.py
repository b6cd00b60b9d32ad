"""Trees of an engine's making, deleted whole: whatever their depth, modes and links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executor.workspaces.tree_removal import remove_tree
from tests.deep_folders import a_bomb


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_depth_is_too_deep_and_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "top"
    a_bomb(top / "one")
    a_bomb(top / "two")
    real, before, most = os.open, open_files(), 0

    def counted(*given: object, **named: object) -> int:
        nonlocal most
        fd: int = real(*given, **named)  # type: ignore[arg-type]
        most = max(most, open_files())
        return fd

    monkeypatch.setattr(os, "open", counted)
    remove_tree(top)
    assert not top.exists()
    assert before < most <= before + 3


def test_links_are_deleted_and_what_they_name_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    for place in (tmp_path / "link", tmp_path / "top" / "link", tmp_path / "top" / "a" / "b" / "link"):
        place.symlink_to(outside)
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert [each.name for each in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_what_was_left_off_goes_when_it_is_begun_again(tmp_path: Path) -> None:
    top = tmp_path / "top"
    a_bomb(top, 40)
    steps = iter([True] * 5)
    remove_tree(top, lambda: next(steps, False))
    assert top.is_dir()
    remove_tree(top)
    assert not top.exists()
