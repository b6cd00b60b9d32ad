"""The directories an engine works in: ``<root>/<key>/{home,work,tmp}``, private, kept from one attempt to the next.

An engine may have left anything in them. So no path below them is ever followed through a symbolic link, and no file is
opened that is not a plain one.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from itertools import islice
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Self

from executor.adapters.base import File
from shared.contracts.provider_runs import WorkspaceFile, WorkspaceFileList
from shared.errors import ErrorCode, RunyardError, invalid

MAX_LISTED_FILES = 10_000
MAX_LISTED_DEPTH = 64
LISTED_WORKSPACES = 1_000
_FIRST_MOMENT, _LAST_MOMENT = (datetime(year, 12, 31, tzinfo=UTC).timestamp() for year in (1, 9999))
_Place = tuple[tuple[int, str], ...]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Workspace:
    """One key's directories. ``base`` is absolute."""

    base: Path

    @classmethod
    def at(cls, root: Path, key: str) -> Workspace:
        if key.startswith("."):  # names of our own, beside the workspaces
            raise invalid("workspace.key", "this key cannot be used")
        return cls(root / key)

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def tmp(self) -> Path:
        return self.base / "tmp"

    def make(self) -> None:
        """All of them, 0700; what stands there and is no folder of its own goes, above all a link. Raises ``workspace_error``."""
        try:
            for folder in (self.base, self.home, self.work, self.tmp):
                if folder.is_symlink() or not folder.is_dir():
                    folder.unlink(missing_ok=True)
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(self.base, follow_symlinks=False)  # newest first is the order they are listed in
        except OSError as error:
            raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"cannot make the workspace: {error.strerror}") from error

    def write(self, files: Iterable[File]) -> None:
        """What an adapter wants to be there before the engine starts. Raises ``workspace_error``."""
        for file in files:
            folders, name = _parts(file.path)
            top = self.home if file.root == "home" else self.work
            try:
                with _opened(self.base, (top.name, *folders), make=True) as folder:
                    _replace(folder, name, file)
            except OSError as error:
                raise RunyardError(ErrorCode.WORKSPACE_ERROR, f"cannot write {file.path}: {error.strerror}") from error

    def files(self, cursor: str | None = None) -> WorkspaceFileList:
        """The plain files of the working directory, in one order, ``MAX_LISTED_DEPTH`` folders deep; a page of
        ``MAX_LISTED_FILES``, the first one or the one behind a page's ``next_cursor``. Raises ``invalid_request``."""
        after = _after(cursor) if cursor is not None else ()
        try:
            with _opened(self.base, (self.work.name,)) as top:
                found = list(islice(_plain_files(top, after), MAX_LISTED_FILES + 1))
        except OSError:  # no folder, or none of its own
            found = []
        page = found[:MAX_LISTED_FILES]
        next_cursor = _cursor_of(page[-1][0]) if len(found) > len(page) else None
        return WorkspaceFileList(items=[_listed(path, entry) for path, entry in page], next_cursor=next_cursor)

    def open(self, path: str) -> PlainFile:
        """One file of the working directory, to be closed. Raises ``not_found``, also for what is not a plain file."""
        folders, name = _parts(path)
        try:
            with _opened(self.base, (self.work.name, *folders)) as folder:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except (OSError, ValueError) as error:
            raise RunyardError(ErrorCode.NOT_FOUND, "there is no such file") from error
        entry = os.fstat(fd)
        if not stat.S_ISREG(entry.st_mode):
            os.close(fd)
            raise RunyardError(ErrorCode.NOT_FOUND, "there is no such file")
        return PlainFile(fd, entry.st_size)


@dataclass(slots=True)
class PlainFile:
    """A file open for reading. ``size`` is what it had when it was opened: an engine may write on."""

    fd: int
    size: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Any number of times."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def blocks(self, block_bytes: int) -> Iterator[bytes]:
        while block := os.read(self.fd, block_bytes):
            yield block


def workspace_keys(root: Path) -> list[str]:
    """The newest keys that have a workspace here, newest first. Looks at every workspace there is: not on the event loop."""
    try:
        with os.scandir(root) as entries:
            aged = [aged for entry in entries if not entry.name.startswith(".") and (aged := _aged(entry)) is not None]
    except OSError:
        return []
    return [name for _at, name in nlargest(LISTED_WORKSPACES, aged)]


def _aged(entry: os.DirEntry[str]) -> tuple[float, str] | None:
    """None for what is no folder, or not any more."""
    try:
        return (entry.stat(follow_symlinks=False).st_mtime, entry.name) if entry.is_dir(follow_symlinks=False) else None
    except OSError:
        return None


def _plain_files(top: int, after: _Place) -> Iterator[tuple[str, os.stat_result]]:
    for folder, names, files, fd in os.fwalk(".", follow_symlinks=False, dir_fd=top):
        here = PurePosixPath(folder)
        names.sort()
        if len(here.parts) >= MAX_LISTED_DEPTH:
            names.clear()
        for name in sorted(files):
            path = here / name
            if _place(path) > after and (entry := _plain_file(name, fd)) is not None:
                yield str(path), entry


def _place(path: PurePosixPath) -> _Place:
    """Where it comes in the order of a walk: the files of a folder first, then the folders in it."""
    return (*((1, folder) for folder in path.parts[:-1]), *((0, name) for name in path.parts[-1:]))


def _cursor_of(path: str) -> str:
    """The last path of a page, whatever bytes its name has."""
    return urlsafe_b64encode(os.fsencode(path)).decode()


def _after(cursor: str) -> _Place:
    try:
        return _place(PurePosixPath(os.fsdecode(b64decode(cursor, b"-_", validate=True))))
    except ValueError:
        raise invalid("cursor", "give the nextCursor of the page before") from None


def _plain_file(name: str, folder: int) -> os.stat_result | None:
    try:
        entry = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:  # an engine at work took it away
        return None
    return entry if stat.S_ISREG(entry.st_mode) else None


def _listed(path: str, entry: os.stat_result) -> WorkspaceFile:
    """A name that is no UTF-8 is shown as far as it can be told on the wire."""
    changed = min(max(entry.st_mtime, _FIRST_MOMENT), _LAST_MOMENT)  # an engine may set any date
    name = os.fsencode(path).decode(errors="replace")
    return WorkspaceFile(path=name, bytes=entry.st_size, modified_at=datetime.fromtimestamp(changed, UTC))


def _parts(path: str) -> tuple[tuple[str, ...], str]:
    """The folders and the name. Raises ``invalid_request`` for a path that leaves its root."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise invalid("path", "give a relative path inside the workspace")
    return pure.parts[:-1], pure.parts[-1]


@contextmanager
def _opened(top: Path, folders: tuple[str, ...], *, make: bool = False) -> Generator[int]:
    """A folder below ``top``, reached step by step and through no link."""
    fd = os.open(top, _FOLDER)
    try:
        for name in folders:
            if make:
                _make_folder(name, fd)
            below = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _make_folder(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass


def _replace(folder: int, name: str, file: File) -> None:
    """A new file, whatever stood there before: a link, a pipe, another's hard link. Whole at once: two attempts of a session
    may share it."""
    draft = f".{token_hex(8)}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, file.mode, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as target:
            target.write(file.content)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(draft, dir_fd=folder)
        raise
