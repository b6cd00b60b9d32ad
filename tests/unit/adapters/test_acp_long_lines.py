"""What an ACP engine says at great length holds nothing up: all conversations of an executor share one loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from executor.adapters.acp.tools import MAX_DIFFED_LINES
from executor.adapters.base import STDERR
from shared.contracts.events import InteractionRequested, RetryScheduled
from shared.contracts.providers import Provider
from shared.errors import ErrorCode
from tests.unit.adapters.test_acp_conversation import REFUSED, TRIED, Peer, logged, says_in_log

FIRST = "timestamp=2026-11-21T06:44:03.945Z level=ERROR run=c2 "


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Without bounds each of these takes from many seconds to minutes."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 5


def changed(path: str, lines: int) -> dict[str, Any]:
    """Many lines that are alike, in another order: what takes longest to compare."""
    dice = Random(3)
    before, after = ("".join(f"{dice.randrange(120)}\n" for _ in range(lines // 2)) for _ in range(2))
    return {"type": "diff", "path": path, "oldText": before, "newText": after}


@pytest.mark.parametrize(("files", "lines"), [(1, 60_000), (5, 30_000)])
def test_a_long_edit_is_shown_by_what_it_writes(files: int, lines: int) -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    peer.asks(kind="edit", content=[changed(f"f{each}", lines) for each in range(files)], rawInput=None)
    assert len(peer.emitted(InteractionRequested)) == 1


def test_all_files_of_one_edit_are_compared_up_to_one_bound() -> None:
    peer = Peer(Provider.GEMINI_CLI).prompted()
    half = MAX_DIFFED_LINES // 2
    peer.asks(kind="edit", content=[changed("a", half), changed("b", half), changed("c", 2)], rawInput=None)
    [asked] = peer.emitted(InteractionRequested)
    assert [sorted(each) for each in asked.tool.input["changes"]] == [
        ["diff", "kind", "path"], ["diff", "kind", "path"], ["content", "kind", "path"],
    ]  # fmt: skip


@pytest.mark.parametrize("line", [
    FIRST + 'message="stream error" small=false error.error="E: ' + "small=false " * 35_000,
    FIRST + 'message="stream error" ' * 100 + "small=false " * 150,
    FIRST + " message=process" * 20_000 + " message=stream" * 20_000,
])  # fmt: skip
def test_a_long_line_of_a_log_is_read_in_time(line: str) -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    for _ in range(20):
        peer.conversation.feed(STDERR, line.encode() + b"\n")


def test_a_reason_that_is_longer_than_what_is_read_of_a_log_is_one_all_the_same() -> None:
    peer = Peer(Provider.OPENCODE).prompted()
    for _ in range(2):
        logged(peer, "INFO", "stream")
        logged(peer, "ERROR", '"stream error"', ' error.error="AI_APICallError: Rate limit reached ' + "so " * 5000 + '"')
    assert [each.error_code for each in peer.emitted(RetryScheduled)] == [ErrorCode.RATE_LIMITED]


def test_a_number_nobody_means_is_none() -> None:
    peer = Peer(Provider.QWEN_CODE).prompted()
    says_in_log(peer, REFUSED, TRIED.format(1, "after explicit delay of " + "9" * 3000 + "ms"), TRIED.format("9" * 3000, "soon"))
    assert [each.delay_ms for each in peer.emitted(RetryScheduled)] == [None]
