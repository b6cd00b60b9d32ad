"""The snapshot store a setting names: a folder or a bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from executor.snapshots.blobs import BlobStore, FolderBlobs
from executor.snapshots.object_blobs import ObjectBlobs


def open_store(url: str) -> BlobStore:
    """Raises ``ValueError`` for what names none."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and path.is_absolute():
        return FolderBlobs(path)
    if parts.scheme == "s3" and parts.netloc:
        return ObjectBlobs.at(url)
    raise ValueError("EXECUTOR_SNAPSHOT_STORE: give file:///an/absolute/path or s3://bucket/prefix")
