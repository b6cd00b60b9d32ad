"""Folders deleted with all that is in them, however deep an engine made them and whatever it took away from their modes.

No link is followed, no depth costs a stack frame or a file descriptor, and no path grows long: a folder that stands in another is
first moved up to the top, and emptied there. What is left off in the middle is a smaller tree, to be begun again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path, goes_on: Callable[[], bool] = lambda: True) -> None:
    """A file, a link or a folder with all that is in it, where nobody works any more. Nothing there is as good.

    Left off as soon as ``goes_on`` says no. Raises ``OSError``.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    top = os.open(path, _FOLDER)
    try:
        while names := os.listdir(top):
            for name in names:
                if not _clear(name, top, goes_on):
                    return
    finally:
        os.close(top)
    path.rmdir()


def _clear(name: str, top: int, goes_on: Callable[[], bool]) -> bool:
    """One entry of the top goes; the folders in it become entries of the top. False: it was left off."""
    if not _is_folder(name, top):
        os.unlink(name, dir_fd=top)
        return goes_on()
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for child in os.listdir(folder):
            if not goes_on():
                return False
            if _is_folder(child, folder):
                os.chmod(child, 0o700, dir_fd=folder)  # whoever moves a folder writes into it: its parent is another
                os.rename(child, token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(child, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
    return goes_on()


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
