"""What an engine said last, however late this executor comes to read it, and what it leaves behind that goes on talking."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from executor.adapters.base import STDOUT, Step, Stream
from executor.processes import engine_process
from tests.service.executor.kit import Inside, executor_inside
from tests.service.executor.shell_engine import ShellConversation

LINE = "say xxxxx\n"
LITTLE_MORE_THAN_A_PIPE = 7_000  # lines
TWO_PIPES = 14_000
CHUNK_SECONDS = 0.05  # what a full pipe holds takes three times as long as a drain waits for silence


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that comes to read a piece now and then: what an engine said stands in its pipe when it has long ended."""
    feed = ShellConversation.feed

    def slow(self: ShellConversation, stream: Stream, chunk: bytes) -> list[Step]:
        if stream == STDOUT:
            time.sleep(CHUNK_SECONDS)  # the slowness itself, not a wait for anything
        return feed(self, stream, chunk)

    monkeypatch.setattr(ShellConversation, "feed", slow)
    monkeypatch.setattr(engine_process, "READ_BYTES", engine_process.LEAST_READ_BYTES)
    monkeypatch.setattr(engine_process, "LONGEST_DRAIN_SECONDS", 60.0)


async def printed(executor: Inside) -> int:
    page = await executor.http.get("/provider-runs/run_1/logs/stdout?byteFrom=0&byteTo=1")
    return page.json()["totalBytes"]


@pytest.mark.usefixtures("busy")
async def test_what_an_engine_says_last_is_heard_on_a_busy_machine(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin(f"yes '{LINE.strip()}' | head -n {LITTLE_MORE_THAN_A_PIPE}; echo done")
        assert (await executor.ended())["outcome"] == "success"
        assert await printed(executor) == LITTLE_MORE_THAN_A_PIPE * len(LINE) + len("done\n")


@pytest.mark.usefixtures("busy")
async def test_what_a_helper_says_after_its_engine_ended_is_heard_on_a_busy_machine(tmp_path: Path) -> None:
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin(f"(yes '{LINE.strip()}' | head -n {TWO_PIPES}; echo done) & exit 0")
        assert (await executor.ended())["outcome"] == "success"
        assert await printed(executor) == TWO_PIPES * len(LINE) + len("done\n")


async def test_a_helper_that_talks_for_ever_holds_its_attempt_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "LONGEST_DRAIN_SECONDS", 1.0)
    async with executor_inside(tmp_path / "state") as executor:
        await executor.begin("(while :; do echo noise; done) & echo done")
        assert (await executor.ended())["outcome"] == "success"
