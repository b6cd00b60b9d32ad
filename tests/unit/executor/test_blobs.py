from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from executor.blobs import BlobError, BlobName, FolderBlobs, open_store

CONTENT = b"what an attempt left" * 1000
NAME = BlobName("ses_1", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def store(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "store")


def test_what_was_put_is_fetched_listed_and_removed(store: FolderBlobs, content: Path, tmp_path: Path) -> None:
    store.put(NAME, content)
    store.fetch(NAME, len(CONTENT), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert store.group("ses_1") == [NAME]
    assert store.group("ses_2") == []
    store.remove(NAME)
    store.remove(NAME)
    assert store.group("ses_1") == []
    with pytest.raises(BlobError, match="not in the store"):
        store.fetch(NAME, len(CONTENT), tmp_path / "again")


def test_a_blob_is_created_once_and_never_changed(store: FolderBlobs, content: Path, tmp_path: Path) -> None:
    store.put(NAME, content)
    before = (store.root / "ses_1" / NAME.sha256).stat()
    content.write_bytes(b"another")
    store.put(NAME, content)
    after = (store.root / "ses_1" / NAME.sha256).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    store.fetch(NAME, len(CONTENT), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize("harm", [CONTENT[:-1], CONTENT + b"x", b"", b"y" + CONTENT[1:]])
def test_a_blob_that_is_not_what_was_put_there_is_refused(store: FolderBlobs, content: Path, tmp_path: Path, harm: bytes) -> None:
    store.put(NAME, content)
    (store.root / "ses_1" / NAME.sha256).write_bytes(harm)
    with pytest.raises(BlobError, match="hash differs"):
        store.fetch(NAME, len(CONTENT), tmp_path / "copy")


def test_a_draft_counts_for_nothing_and_goes_when_it_is_old(store: FolderBlobs, content: Path) -> None:
    """What a writer leaves that is killed before its blob has a name."""
    group = store.root / "ses_1"
    group.mkdir(parents=True)
    old, young = group / ".draft-1", group / ".draft-2"
    for draft in (old, young):
        draft.write_bytes(CONTENT[:100])
    long_ago = time.time() - 90_000
    os.utime(old, (long_ago, long_ago))
    assert store.group("ses_1") == []
    store.put(NAME, content)
    assert store.group("ses_1") == [NAME]
    assert sorted(path.name for path in group.iterdir()) == sorted([".draft-2", NAME.sha256])


def test_a_full_or_broken_store_is_told_and_leaves_nothing(store: FolderBlobs, content: Path) -> None:
    store.root.write_text("a file stands in its place")
    with pytest.raises(BlobError):
        store.put(NAME, content)
    with pytest.raises(BlobError):
        store.group("ses_1")


@pytest.mark.parametrize("group", ["", ".", "..", ".left", "a/b", "a" * 129])
def test_a_group_is_one_plain_name(group: str) -> None:
    with pytest.raises(ValueError):
        BlobName(group, NAME.sha256)


@pytest.mark.parametrize("sha256", ["", "0" * 63, "G" * 64, "../" + "0" * 61])
def test_a_hash_is_a_hash(sha256: str) -> None:
    with pytest.raises(ValueError):
        BlobName("g", sha256)


def test_a_setting_names_the_store() -> None:
    assert open_store("file:///var/lib/my%20snapshots") == FolderBlobs(Path("/var/lib/my snapshots"))
    for wrong in ("/var/lib", "file://host/path", "file:relative", "ftp://x/y", ""):
        with pytest.raises(ValueError, match="EXECUTOR_SNAPSHOT_STORE"):
            open_store(wrong)
