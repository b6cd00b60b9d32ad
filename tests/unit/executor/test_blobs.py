from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
from pathlib import Path

import pytest

from executor.snapshots import object_blobs
from executor.snapshots.blobs import BlobError, BlobName, BlobStore, FolderBlobs
from executor.snapshots.object_blobs import ObjectBlobs
from executor.snapshots.store import open_store
from tests.loopback import unused_port

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


def in_memory() -> ObjectBlobs:
    """As in a bucket; the library's own store in memory has the same rules."""
    return ObjectBlobs(importlib.import_module("obstore.store").MemoryStore(), object_blobs.library())


@pytest.fixture(params=["folder", "objects", "objects in parts"])
def either(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "objects in parts":
        monkeypatch.setattr(object_blobs, "AT_ONCE_BYTES", 10)
    return FolderBlobs(tmp_path / "store") if request.param == "folder" else in_memory()


def test_what_was_put_is_fetched_listed_and_removed(either: BlobStore, content: Path, tmp_path: Path) -> None:
    either.put(NAME, content)
    either.fetch(NAME, len(CONTENT), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert either.group("ses_1") == [NAME]
    assert either.group("ses_2") == either.group("ses") == []
    either.remove(NAME)
    either.remove(NAME)
    assert either.group("ses_1") == []
    with pytest.raises(BlobError, match="not in the store"):
        either.fetch(NAME, len(CONTENT), tmp_path / "again")


def test_a_blob_is_created_once_and_never_changed(either: BlobStore, content: Path, tmp_path: Path) -> None:
    either.put(NAME, content)
    content.write_bytes(b"another")
    either.put(NAME, content)
    either.fetch(NAME, len(CONTENT), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    with pytest.raises(BlobError, match="hash differs"):
        either.fetch(NAME, len(CONTENT) - 1, tmp_path / "less")


def test_a_group_is_forgotten_when_it_is_old_enough(either: BlobStore, content: Path) -> None:
    either.put(NAME, content)
    assert not either.forget("ses_1", 3600)
    assert either.group("ses_1") == [NAME]
    assert either.forget("ses_1", -1)
    assert either.group("ses_1") == []
    assert either.forget("ses_1", -1)


@pytest.mark.parametrize("harm", [CONTENT[:-1], CONTENT + b"x", b""])
def test_an_object_that_is_not_what_was_put_there_is_refused(tmp_path: Path, harm: bytes) -> None:
    store = in_memory()
    store.obstore.put(store.store, f"{NAME.group}/{NAME.sha256}", harm)
    with pytest.raises(BlobError, match="hash differs"):
        store.fetch(NAME, len(CONTENT), tmp_path / "copy")


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


def test_a_bucket_is_named_by_its_url_and_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store("s3://bucket/some/prefix"), ObjectBlobs)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ValueError, match=r"runyard\[s3\]"):
        open_store("s3://bucket/some/prefix")


def test_a_bucket_that_does_not_answer_is_told_in_a_line(content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port()}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "r"}
    for name, value in {**given, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "never shown"}.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://bucket/prefix")
    for call in (lambda: store.put(NAME, content), lambda: store.fetch(NAME, 1, tmp_path / "copy"), lambda: store.group("g")):
        with pytest.raises(BlobError, match="the snapshot store did not do it") as told:
            call()
        assert "never shown" not in str(told.value)
        assert "\n" not in str(told.value)


def test_a_setting_names_the_store() -> None:
    assert open_store("file:///var/lib/my%20snapshots") == FolderBlobs(Path("/var/lib/my snapshots"))
    for wrong in ("/var/lib", "file://host/path", "file:relative", "ftp://x/y", "s3:///no-bucket", ""):
        with pytest.raises(ValueError, match="EXECUTOR_SNAPSHOT_STORE"):
            open_store(wrong)
