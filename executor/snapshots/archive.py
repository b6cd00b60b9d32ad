"""A workspace and its engine's session as one file, and back: a gzipped tar, the same bytes for the same tree.

An engine may have left anything there. What is no plain file, folder or link is left out, no link is followed in either
direction, and owners, times of access and the bits beyond ``rwx`` are not kept. Everything here blocks.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, cast

from executor.snapshots.blobs import GoesOn
from executor.workspaces.tree_removal import remove_tree
from executor.workspaces.workspace import Workspace

MAX_ENTRIES = 200_000
MAX_DEPTH = 200
BLOCK_BYTES = 1024 * 1024
LEVEL = 1
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArchiveError(Exception):
    """It cannot be made, or is none of ours; the text says why."""


class Halted(ArchiveError):
    """Whoever asked for it wants it no more."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive that was written. ``size`` is its own, in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    path: Path
    seen: os.stat_result


def pack(workspace: Workspace, home: Sequence[str], target: Path, max_bytes: int, goes_on: GoesOn) -> Packed:
    """The working directory, and those parts of HOME that match a pattern of ``home``, as a new file.

    Nothing may be writing there. ``max_bytes`` is the most that the files may hold together. Raises ``ArchiveError``.
    """
    try:
        entries = _counted(chain(_tree(workspace.work, "work"), _parts_of_home(workspace.home, home)), max_bytes)
        with target.open("xb") as file:
            hashed = _Hashed(file)
            with (
                gzip.GzipFile("", "wb", LEVEL, cast(IO[bytes], hashed), mtime=0) as squeezed,
                tarfile.open(mode="w|", fileobj=squeezed, format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as tar,
            ):
                for entry in entries:
                    _go_on(goes_on)
                    _add(tar, entry, goes_on)
    except (OSError, tarfile.TarError) as error:
        raise ArchiveError(f"the workspace cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return Packed(hashed.digest.hexdigest(), hashed.size)


def unpack(source: Path, target: Path, max_bytes: int, goes_on: GoesOn) -> None:
    """Lay what ``pack`` made into a new, private folder: ``work`` and ``home``. Raises ``ArchiveError``."""
    left = max_bytes
    try:
        target.mkdir(mode=0o700)
        folders: dict[Path, tarfile.TarInfo] = {}
        with tarfile.open(source, mode="r|gz", bufsize=BLOCK_BYTES) as tar:
            for member in tar:
                _go_on(goes_on)
                place = _place(target, member.name, folders)
                left -= member.size
                if left < 0:
                    raise ArchiveError("the archive holds more than a snapshot may")
                if member.isdir():
                    place.mkdir(mode=0o700)
                    folders[place] = member
                elif member.issym():
                    os.symlink(member.linkname, place)
                elif member.isreg():
                    _lay(tar, member, place, goes_on)
                else:
                    raise ArchiveError("the archive holds something we never put there")
        for place, member in reversed(folders.items()):
            place.chmod(member.mode & 0o777)
            os.utime(place, (member.mtime, member.mtime))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ArchiveError(f"the archive cannot be laid out: {getattr(error, 'strerror', None) or error}") from error


def exchange(workspace: Workspace, laid: Path, home: Sequence[str]) -> None:
    """Put what ``unpack`` laid out in the place of what stands there. Raises ``ArchiveError``; then it is half done.

    Of HOME only what matches a pattern is replaced: the rest is written anew at every start, or is nobody's session.
    """
    try:
        workspace.make()
        remove_tree(workspace.work)
        fresh = laid / "work"
        if fresh.is_dir():
            fresh.rename(workspace.work)
        for path in _matching(workspace.home, home):
            remove_tree(path)
        for path in _matching(laid / "home", home):
            place = workspace.home / path.relative_to(laid / "home")
            _make_parents(workspace.home, place)
            path.rename(place)
        workspace.make()
    except OSError as error:
        raise ArchiveError(f"the workspace cannot be replaced: {error.strerror}") from error


# ---- what is taken ----


def _parts_of_home(home: Path, patterns: Sequence[str]) -> Iterator[_Entry]:
    """Each part, after the folders that lead to it."""
    told: set[Path] = {home}
    yield _Entry("home", home, os.lstat(home))
    for path in _matching(home, patterns):
        for parent in reversed(path.relative_to(home).parents[:-1]):
            if home / parent not in told:
                told.add(home / parent)
                yield _Entry(f"home/{parent}", home / parent, os.lstat(home / parent))
        yield from _tree(path, f"home/{path.relative_to(home)}")


def _matching(home: Path, patterns: Sequence[str]) -> list[Path]:
    """What is there and matches, in order, reached through no link. A pattern's last part may hold ``*``."""
    found: set[Path] = set()
    for pattern in patterns:
        pure = PurePosixPath(pattern)
        folder = home.joinpath(*pure.parts[:-1])
        if any(each.is_symlink() for each in (folder, *folder.parents) if each.is_relative_to(home)) or not folder.is_dir():
            continue
        found.update(folder / name for name in os.listdir(folder) if fnmatchcase(name, pure.name))
    return sorted(found)


def _tree(top: Path, name: str) -> Iterator[_Entry]:
    """A path and everything below it, in order, as far as it is a file, a folder or a link."""
    waiting = [(top, name)]
    while waiting:
        path, called = waiting.pop()
        seen = os.lstat(path)
        if stat.S_ISDIR(seen.st_mode):
            waiting += [(path / child, f"{called}/{child}") for child in sorted(os.listdir(path), reverse=True)]
        elif not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode)):
            continue
        yield _Entry(called, path, seen)


def _counted(found: Iterator[_Entry], max_bytes: int) -> list[_Entry]:
    """All of it, or ``ArchiveError`` as soon as it is too much."""
    entries: list[_Entry] = []
    size = 0
    for entry in found:
        entries.append(entry)
        if entry.name.count("/") > MAX_DEPTH:
            raise ArchiveError(f"it holds more than {MAX_DEPTH} folders in each other")
        size += entry.seen.st_size if stat.S_ISREG(entry.seen.st_mode) else 0
        if size > max_bytes:
            raise ArchiveError(f"its files hold more than the {max_bytes} bytes a snapshot may")
        if len(entries) > MAX_ENTRIES:
            raise ArchiveError(f"it holds more than the {MAX_ENTRIES} files and folders a snapshot may")
    return entries


def _add(tar: tarfile.TarFile, entry: _Entry, goes_on: GoesOn) -> None:
    info = tarfile.TarInfo(entry.name)
    info.mode, info.mtime = entry.seen.st_mode & 0o777, int(entry.seen.st_mtime)
    if stat.S_ISDIR(entry.seen.st_mode):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISLNK(entry.seen.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(entry.path)
        tar.addfile(info)
    else:
        fd = os.open(entry.path, os.O_RDONLY | _OPEN)
        with os.fdopen(fd, "rb") as file:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode) or seen.st_size != entry.seen.st_size:
                raise ArchiveError("something still writes into the workspace")
            info.size = seen.st_size
            tar.addfile(info, cast(IO[bytes], _Watched(file, goes_on)))


# ---- what is laid ----


def _place(target: Path, name: str, folders: Container[Path]) -> Path:
    """Below ``target``, in one of the folders that were laid. Raises ``ArchiveError`` for any other name."""
    place = target / name
    if PurePosixPath(name).is_absolute() or ".." in place.parts:
        raise ArchiveError("the archive names a path outside the workspace")
    if place.parent not in folders and place not in (target / "work", target / "home"):
        raise ArchiveError("the archive names a path in no folder of its own")
    return place


def _lay(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, goes_on: GoesOn) -> None:
    content = tar.extractfile(member)
    if content is None:
        raise ArchiveError("the archive is not whole")
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(cast(IO[bytes], _Watched(content, goes_on)), file, BLOCK_BYTES)
        os.fchmod(fd, member.mode & 0o777)
    os.utime(place, (member.mtime, member.mtime))


def _make_parents(home: Path, place: Path) -> None:
    """The folders above ``place``; a link that stands in their way goes."""
    for parent in reversed(place.relative_to(home).parents[:-1]):
        folder = home / parent
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)
            folder.mkdir(mode=0o700)


# ---- on the way ----


def _go_on(goes_on: GoesOn) -> None:
    if not goes_on():
        raise Halted("there was no more time for it")


class _Watched:
    """A file read in blocks, that stops when nobody wants it any more."""

    def __init__(self, file: IO[bytes], goes_on: GoesOn) -> None:
        self._file = file
        self._goes_on = goes_on

    def read(self, size: int = -1) -> bytes:
        _go_on(self._goes_on)
        return self._file.read(size)


class _Hashed:
    """What is written through it, counted and hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
