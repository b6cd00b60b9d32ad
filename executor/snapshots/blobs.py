"""Where snapshots are kept so that every executor of a fleet finds them: blobs by name, created once and never changed.

A blob that is there is whole: what a dying writer leaves behind has no name. What is fetched is checked against the hash the
caller knows, so nothing else than what was put there ever reaches a workspace.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Protocol

BLOCK_BYTES = 1024 * 1024
OLD_DRAFT_SECONDS = 86_400
_DRAFT = ".draft-"
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


GoesOn = Callable[[], bool]


def for_ever() -> bool:
    return True


class BlobError(Exception):
    """The store does not answer, has no such blob, or has another one under its name. Its text names no secret."""


def must_go_on(goes_on: GoesOn) -> None:
    """Raises ``BlobError``."""
    if not goes_on():
        raise BlobError("there was no more time for the snapshot")


@dataclass(frozen=True, slots=True)
class BlobName:
    """``group`` is whose blob it is (a workspace's key), ``sha256`` what it holds: one name is one content for ever."""

    group: str
    sha256: str

    def __post_init__(self) -> None:
        if not _PART.fullmatch(self.group) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError("that is no name of a blob")


class BlobStore(Protocol):
    """Blocking; called from threads. Every method raises ``BlobError``, also where it notices that it is to go on no more."""

    def put(self, name: BlobName, content: Path, goes_on: GoesOn = for_ever) -> None:
        """Keep a file's content. One that is there already stays as it is. Returns when it is on the disk."""
        ...

    def fetch(self, name: BlobName, max_bytes: int, target: Path, goes_on: GoesOn = for_ever) -> None:
        """Write the blob to a new file, and vouch for its hash. ``max_bytes``: more is not what was put there."""
        ...

    def group(self, group: str) -> list[BlobName]:
        """All blobs of a group."""
        ...

    def remove(self, name: BlobName) -> None:
        """One that is not there is removed already."""
        ...

    def forget(self, group: str, older_than: float) -> bool:
        """Remove all blobs of a group that were put more than so many seconds ago. True: none is left."""
        ...


@dataclass(frozen=True, slots=True)
class FolderBlobs:
    """A folder that all executors see: ``<root>/<group>/<sha256>``. Drafts have names of their own and count for nothing."""

    root: Path

    def put(self, name: BlobName, content: Path, goes_on: GoesOn = for_ever) -> None:
        place = self._place(name)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sweep_drafts(place.parent)
            if not place.exists():
                _write(content, place, goes_on)
                _sync(place.parent)
                _sync(self.root)
        except OSError as error:
            raise BlobError(f"the snapshot store cannot be written: {error.strerror}") from error

    def fetch(self, name: BlobName, max_bytes: int, target: Path, goes_on: GoesOn = for_ever) -> None:
        try:
            with self._place(name).open("rb") as source, target.open("xb") as copy:
                digest, left = hashlib.sha256(), max_bytes
                for block in _blocks(source.fileno(), goes_on):
                    left -= len(block)
                    if left < 0:
                        break
                    digest.update(block)
                    copy.write(block)
        except FileNotFoundError as error:
            raise BlobError("the snapshot is not in the store") from error
        except OSError as error:
            raise BlobError(f"the snapshot cannot be read: {error.strerror}") from error
        if left < 0 or digest.hexdigest() != name.sha256:
            raise BlobError("the snapshot in the store is not the one that was put there: its hash differs")

    def group(self, group: str) -> list[BlobName]:
        try:
            names = os.listdir(self._place(BlobName(group, "0" * 64)).parent)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BlobError(f"the snapshot store cannot be read: {error.strerror}") from error
        return [BlobName(group, name) for name in sorted(names) if len(name) == 64 and not name.startswith(".")]

    def remove(self, name: BlobName) -> None:
        try:
            self._place(name).unlink(missing_ok=True)
        except OSError as error:
            raise BlobError(f"the snapshot store cannot be written: {error.strerror}") from error

    def forget(self, group: str, older_than: float) -> bool:
        folder, oldest = self._place(BlobName(group, "0" * 64)).parent, time.time() - older_than
        try:
            entries = list(folder.iterdir())
            young = [entry for entry in entries if entry.stat().st_mtime > oldest]
            for entry in entries:
                if entry not in young:
                    entry.unlink(missing_ok=True)
            if not young:
                folder.rmdir()
        except FileNotFoundError:
            return not folder.exists()
        except OSError as error:
            raise BlobError(f"the snapshot store cannot be written: {error.strerror}") from error
        return not young

    def _place(self, name: BlobName) -> Path:
        return self.root / name.group / name.sha256


def _write(content: Path, place: Path, goes_on: GoesOn) -> None:
    """Whole, on the disk, and under its name only then."""
    draft = place.parent / f"{_DRAFT}{token_hex(8)}"
    try:
        with content.open("rb") as source, draft.open("xb") as target:
            os.fchmod(target.fileno(), 0o600)
            for block in _blocks(source.fileno(), goes_on):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        draft.rename(place)
    finally:
        draft.unlink(missing_ok=True)


def _sweep_drafts(folder: Path) -> None:
    """What writers left that were killed."""
    oldest = time.time() - OLD_DRAFT_SECONDS
    for entry in folder.glob(f"{_DRAFT}*"):
        if entry.stat().st_mtime < oldest:
            entry.unlink(missing_ok=True)


def _blocks(fd: int, goes_on: GoesOn) -> Iterator[bytes]:
    while block := os.read(fd, BLOCK_BYTES):
        must_go_on(goes_on)
        yield block


def _sync(folder: Path) -> None:
    """A name is as lasting as its folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
