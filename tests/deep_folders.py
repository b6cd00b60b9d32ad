"""What an engine can leave that no path names and no recursion reaches."""

from __future__ import annotations

import os
from pathlib import Path


def a_bomb(top: Path, depth: int = 1_200) -> None:
    """Folders in each other, so deep that no path names the last and no recursion reaches it."""
    top.mkdir(parents=True)
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("folder", dir_fd=folder)
        below = os.open("folder", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.fchmod(folder, 0o500)
    os.close(folder)
