"""Files on their way out: whole, redacted whatever their kind, bounded, and never a file that is not the workspace's."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.adapters.base import File
from executor.workspaces import downloads
from executor.workspaces import workspace as workspaces
from executor.workspaces.downloads import Produced, bundle_of, one_file, zipped
from executor.workspaces.workspace import Workspace
from shared.errors import ErrorCode, RunyardError
from shared.sse import CutError

SECRET = "sk-never-shown-0123"
STARS = b"*" * len(SECRET)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.at(tmp_path, "key")
    made.make()
    return made


def put(workspace: Workspace, **files: bytes) -> None:
    workspace.write(File("workspace", name, content) for name, content in files.items())


def archive(workspace: Workspace) -> zipfile.ZipFile:
    made = zipfile.ZipFile(io.BytesIO(b"".join(zipped(workspace, bundle_of(workspace), [SECRET]))))
    assert made.testzip() is None
    return made


@given(content=st.binary(max_size=400), at=st.integers(0, 400), block=st.integers(1, 64))
def test_a_file_is_whole_and_shows_no_secret_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, at: int, block: int
) -> None:
    workspace = Workspace.at(tmp_path_factory.mktemp("w"), "key")
    workspace.make()
    put(workspace, f=content[:at] + SECRET.encode() + content[at:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "BLOCK_BYTES", block)
        with workspace.open("f") as file:
            assert b"".join(one_file(file, [SECRET])) == content[:at] + STARS + content[at:]
        with archive(workspace).open("f") as entry:
            assert entry.read() == content[:at] + STARS + content[at:]


def test_an_archive_holds_every_plain_file_and_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, a=b"1", empty=b"", big=os.urandom(3 * downloads.BLOCK_BYTES))
    workspace.write([File("workspace", "deep/ü.txt", b"2"), File("home", "auth.json", b"3")])
    (tmp_path / "outside").write_bytes(b"4")
    (workspace.work / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(workspace.work / "pipe")
    made = archive(workspace)
    assert sorted(made.namelist()) == ["a", "big", "deep/ü.txt", "empty"]
    assert made.read("big") == (workspace.work / "big").read_bytes()


def test_a_file_that_goes_meanwhile_is_left_out(workspace: Workspace) -> None:
    put(workspace, a=b"1", b=b"2")
    listed = bundle_of(workspace)
    (workspace.work / "a").unlink()
    made = zipfile.ZipFile(io.BytesIO(b"".join(zipped(workspace, listed, []))))
    assert made.namelist() == ["b"]


def test_a_file_that_grows_is_given_as_its_size_was_told(workspace: Workspace) -> None:
    put(workspace, a=b"12")
    with workspace.open("a") as file, (workspace.work / "a").open("ab") as writer:
        writer.write(b"345")
        writer.flush()
        assert b"".join(one_file(file, [])) == b"12"


def test_a_file_that_shrinks_is_cut_and_not_ended(workspace: Workspace) -> None:
    put(workspace, a=b"12")
    with workspace.open("a") as file:
        os.truncate(workspace.work / "a", 1)
        with pytest.raises(CutError):
            list(one_file(file, []))


@pytest.mark.parametrize(("where", "bound"), [(downloads, "MAX_BUNDLE_BYTES"), (workspaces, "MAX_LISTED_FILES")])
def test_more_than_an_archive_may_hold_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, where: ModuleType, bound: str
) -> None:
    put(workspace, a=b"1", b=b"2", c=b"3")
    monkeypatch.setattr(where, bound, 2)
    with pytest.raises(RunyardError) as refused:
        bundle_of(workspace)
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE


def test_files_that_grow_beyond_the_bound_cut_their_archive(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    put(workspace, a=b"1")
    listed = bundle_of(workspace)
    (workspace.work / "a").write_bytes(b"123")
    monkeypatch.setattr(downloads, "MAX_BUNDLE_BYTES", 2)
    with pytest.raises(CutError):
        list(zipped(workspace, listed, []))


@pytest.mark.parametrize("begun", [False, True])
async def test_a_download_that_is_left_closes_its_file(workspace: Workspace, begun: bool) -> None:
    put(workspace, a=b"1" * 3 * downloads.BLOCK_BYTES)
    file = workspace.open("a")
    blocks = Produced(one_file(file, []), file)
    if begun:
        assert await blocks.next(1)
    await blocks.close()
    assert file.fd == -1
