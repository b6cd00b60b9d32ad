"""What an executor says of its workspaces: at once, newest first, and true again after the next look."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from executor.workspaces.known_workspaces import KnownWorkspaces
from executor.workspaces.workspace import LISTED_WORKSPACES, Workspace

BOUND_SECONDS = 20


async def test_what_stands_there_and_what_was_used_since_are_told_newest_first(tmp_path: Path) -> None:
    for age, key in enumerate(("third", "fourth")):
        Workspace.at(tmp_path, key).make()
        os.utime(tmp_path / key, (1_000 - age, 1_000 - age))
    known = KnownWorkspaces(tmp_path)
    await known.look()
    for key in ("first", "second", "first"):
        known.used(key)
    assert known.keys() == ["first", "second", "third", "fourth"]


async def test_what_is_used_during_a_look_stays_the_newest_and_what_was_before_is_as_the_look_found_it() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow_look(_root: Path) -> list[str]:
        begun.set()
        assert go_on.wait(BOUND_SECONDS)
        return ["b", "a"]

    known = KnownWorkspaces(Path("/nowhere"), slow_look)
    known.used("gone")
    looking = asyncio.create_task(known.look())
    assert await asyncio.to_thread(begun.wait, BOUND_SECONDS)
    known.used("a")
    assert known.keys() == ["a", "gone"], "the answer does not wait for the look"
    go_on.set()
    await looking
    assert known.keys() == ["a", "b"]


async def test_only_so_many_are_told() -> None:
    known = KnownWorkspaces(Path("/nowhere"))
    for number in range(LISTED_WORKSPACES + 5):
        known.used(str(number))
    told = known.keys()
    assert (len(told), told[0]) == (LISTED_WORKSPACES, str(LISTED_WORKSPACES + 4))
