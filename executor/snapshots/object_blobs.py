"""Blobs in a bucket (S3 and what speaks like it), by ``obstore``: ``<prefix>/<group>/<sha256>``.

An object appears when all of it was sent, so there are no drafts. Nothing here reads a credential: the library takes them from
the executor's environment (``AWS_…``).
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from executor.snapshots.blobs import BLOCK_BYTES, BlobError, BlobName, GoesOn, for_ever, must_go_on

# What is sent in one request, so that the store itself refuses to write over what is there; more goes in parts.
AT_ONCE_BYTES = 16 * 1024 * 1024
ANSWER_SECONDS = 30
RETRIES = 3


def library() -> ModuleType:
    """Raises ``ValueError`` where it is not installed."""
    try:
        return importlib.import_module("obstore")
    except ImportError as error:
        raise ValueError("EXECUTOR_SNAPSHOT_STORE: a bucket needs the package obstore (the extra runyard[s3])") from error


@dataclass(frozen=True, slots=True)
class ObjectBlobs:
    """``store`` is one of ``obstore``'s."""

    store: Any
    obstore: ModuleType

    @classmethod
    def at(cls, url: str) -> ObjectBlobs:
        """A bucket by its URL. Connects to nothing. Raises ``ValueError``."""
        obstore = library()
        retry = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRIES * ANSWER_SECONDS)}
        stores = importlib.import_module("obstore.store")
        try:
            store = stores.S3Store.from_url(url, client_options={"timeout": f"{ANSWER_SECONDS}s"}, retry_config=retry)
        except Exception as error:  # its own classes, which are not there before it is
            raise ValueError(f"EXECUTOR_SNAPSHOT_STORE: {_said(error)}") from error
        return cls(store, obstore)

    def put(self, name: BlobName, content: Path, goes_on: GoesOn = for_ever) -> None:
        must_go_on(goes_on)  # what is being sent cannot be interrupted
        place = _place(name)
        with self._errors():
            if content.stat().st_size <= AT_ONCE_BYTES:
                self._create(place, content)
            elif not self._is_there(place):
                self.obstore.put(self.store, place, content, use_multipart=True)

    def _create(self, place: str, content: Path) -> None:
        try:
            self.obstore.put(self.store, place, content, mode="create", use_multipart=False)
        except self.obstore.exceptions.AlreadyExistsError:
            pass  # the same content: it is in the name

    def _is_there(self, place: str) -> bool:
        try:
            self.obstore.head(self.store, place)
        except FileNotFoundError:
            return False
        return True

    def fetch(self, name: BlobName, max_bytes: int, target: Path, goes_on: GoesOn = for_ever) -> None:
        digest, left = hashlib.sha256(), max_bytes
        with self._errors(), target.open("xb") as copy:
            for block in self.obstore.get(self.store, _place(name)).stream(min_chunk_size=BLOCK_BYTES):
                must_go_on(goes_on)
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                copy.write(block)
        if left < 0 or digest.hexdigest() != name.sha256:
            raise BlobError("the snapshot in the store is not the one that was put there: its hash differs")

    def group(self, group: str) -> list[BlobName]:
        with self._errors():
            return sorted((name for name, _put_at in self._listed(group)), key=lambda name: name.sha256)

    def remove(self, name: BlobName) -> None:
        with self._errors():
            try:
                self.obstore.delete(self.store, _place(name))
            except FileNotFoundError:
                pass

    def forget(self, group: str, older_than: float) -> bool:
        oldest = datetime.now(UTC) - timedelta(seconds=older_than)
        with self._errors():
            listed = list(self._listed(group))
        old = [name for name, put_at in listed if put_at <= oldest]
        for name in old:
            self.remove(name)
        return len(old) == len(listed)

    def _listed(self, group: str) -> Iterator[tuple[BlobName, datetime]]:
        prefix = f"{BlobName(group, '0' * 64).group}/"
        for page in self.obstore.list(self.store, prefix=prefix):
            for each in page:
                name = str(each["path"]).removeprefix(prefix)
                if len(name) == 64:
                    yield BlobName(group, name), each["last_modified"]

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BlobError("the snapshot is not in the store") from error
        except (OSError, self.obstore.exceptions.BaseError) as error:
            raise BlobError(f"the snapshot store did not do it: {_said(error)}") from error


def _place(name: BlobName) -> str:
    return f"{name.group}/{name.sha256}"


def _said(error: Exception) -> str:
    """The first line: what follows is for the library's own people, and may hold headers of a request."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
