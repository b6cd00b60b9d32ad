"""When a keeper starts its process again, and when it gives up: with a process that is only played, and short times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from runyard.local_stack import keeper
from runyard.local_stack.keeper import Keeper
from runyard.local_stack.stack import StackError


class Played:
    """A process that does what a test says. ``launches`` counts its lives."""

    name = "played"

    def __init__(self) -> None:
        self.launches = 0
        self.pid: int | None = None
        self.exit_status: int | None = None
        self.is_deaf = False
        self.is_never_ready = False
        self.ends_at_launch = False
        self.refuses_to_launch = 0
        self.refusal: Exception = StackError("not now")

    def launch(self) -> None:
        self.launches += 1
        if self.refuses_to_launch:
            self.refuses_to_launch -= 1
            raise self.refusal
        self.exit_status = 7 if self.ends_at_launch else None
        self.is_deaf = False

    def kill(self) -> None:
        self.exit_status = -9

    def last_words(self) -> str:
        return "goodbye"

    async def is_ready(self) -> bool:
        return not self.is_never_ready

    async def answers(self) -> bool:
        return not self.is_deaf


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    short = {"TICK_SECONDS": 0.002, "PROBE_EVERY_SECONDS": 0.005, "SILENT_SECONDS": 0.05, "FIRST_DELAY_SECONDS": 0.001}
    for name, seconds in {**short, "ENDING_SECONDS": 0.02, "START_SECONDS": 0.1, "LONGEST_DELAY_SECONDS": 0.01}.items():
        monkeypatch.setattr(keeper, name, seconds)
    return Played()


async def kept_until(played: Played, said: list[str], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        task = asyncio.create_task(Keeper(played, said.append).keep())
        try:
            while not condition():
                assert not task.done(), await task
                await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_ended_is_started_again_and_said(played: Played, said: list[str]) -> None:
    played.exit_status = 3
    await kept_until(played, said, lambda: played.launches == 1)
    assert said == ["played ended with status 3; starting it again"]


async def test_what_gives_no_answer_for_long_is_killed_and_started_again(played: Played, said: list[str]) -> None:
    played.is_deaf = True
    await kept_until(played, said, lambda: played.launches == 1)
    assert "gave no answer" in said[0]


@pytest.mark.parametrize("refusal", [StackError("not now"), OSError("not now")], ids=["stack", "system"])
async def test_a_launch_that_fails_is_tried_again_for_ever(played: Played, said: list[str], refusal: Exception) -> None:
    played.exit_status, played.refuses_to_launch, played.refusal = 1, 5, refusal
    await kept_until(played, said, lambda: played.launches == 6)
    assert "played could not be started: not now" in said


async def test_what_lives_and_answers_is_left_alone(played: Played, said: list[str]) -> None:
    ticks = 0

    async def answers() -> bool:
        nonlocal ticks
        ticks += 1
        return True

    played.answers = answers
    await kept_until(played, said, lambda: ticks == 30)
    assert (played.launches, said) == (0, [])


async def test_what_ends_at_every_start_is_given_up_with_its_last_words(played: Played, said: list[str]) -> None:
    played.ends_at_launch = True
    with pytest.raises(StackError, match="played ends at start:\ngoodbye"):
        await Keeper(played, said.append).bring_up()
    assert played.launches >= keeper.STARTS_BEFORE_GIVING_UP


async def test_what_never_gets_ready_is_given_up(played: Played, said: list[str]) -> None:
    played.is_never_ready = True
    with pytest.raises(StackError, match="was not ready within"):
        await Keeper(played, said.append).bring_up()
    assert played.launches == 1


async def test_the_longest_delay_stays_the_longest_after_any_number_of_failures(played: Played, said: list[str]) -> None:
    played.ends_at_launch, played.exit_status = True, 1
    keeper_of_it = Keeper(played, said.append)
    keeper_of_it._failures = 5_000
    async with asyncio.timeout(20):
        task = asyncio.create_task(keeper_of_it.keep())
        while played.launches < 3:
            assert not task.done(), await task
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_lived_well_for_a_while_is_started_again_without_a_long_delay(
    played: Played, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LONGEST_DELAY_SECONDS", 3_600)
    monkeypatch.setattr(keeper, "HEALTHY_AFTER_SECONDS", 0)
    monkeypatch.setattr(keeper, "FIRST_DELAY_SECONDS", 0.1)  # doubled for every failure it remembered: 1,638 s
    keeper_of_it = Keeper(played, said.append)
    keeper_of_it._failures, played.exit_status = 14, 1
    async with asyncio.timeout(20):
        task = asyncio.create_task(keeper_of_it.keep())
        while not played.launches:
            assert not task.done(), await task
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
