"""When the executors are asked, who waits for their answers, and what one of them can do to the others'."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from executor_manager.fleet import FRESH_SECONDS, ExecutorFleet
from executor_manager.locate import ProposeExecutor
from shared.contracts.provider_runs import ExecutorState, Proposal, Propose, WorkspaceRef
from shared.contracts.providers import Provider
from shared.http import ServiceClient
from tests.fake_executor import FakeExecutor
from tests.loopback import serving, until


def live(fleet: ExecutorFleet) -> list[int]:
    return [member.state.live for member in fleet.members if member.state]


async def test_a_proposal_is_made_by_how_the_executors_do_now(client: ServiceClient) -> None:
    one, two, now = FakeExecutor("one"), FakeExecutor("two", live=1), [100.0]
    async with serving(one.app()) as first, serving(two.app()) as second:
        fleet = ExecutorFleet([first, second], client, clock=lambda: now[0])
        await fleet.refresh()
        one.live, two.live = 2, 1  # through another manager
        now[0] += FRESH_SECONDS + 0.1
        proposal = await ProposeExecutor(fleet)(Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="a")))
        assert (proposal.executor_id, one.polls, two.polls) == ("two", 2, 2)
        await ProposeExecutor(fleet)(Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="b")))
        assert (one.polls, two.polls) == (2, 2), "asked a moment ago"


async def test_a_proposal_does_not_wait_for_an_executor_that_hangs(client: ServiceClient) -> None:
    now, hanging = [100.0], asyncio.Event()

    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.set()
        writer.close()

    async with serving(FakeExecutor("one").app()) as url, await asyncio.start_server(mute, "127.0.0.1") as silent:
        fleet = ExecutorFleet([url, f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"], client, clock=lambda: now[0])
        await fleet.refresh()
        hanging.clear()
        now[0] += 100
        proposal = await ProposeExecutor(fleet)(Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="a")))
        assert (proposal.executor_id, hanging.is_set()) == ("one", False)


async def test_proposals_that_will_not_wait_for_a_slow_executor_do_not_keep_others_from_hearing_it(client: ServiceClient) -> None:
    one, proposals = FakeExecutor("one", slots=1000), list[asyncio.Task[Proposal]]()
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client)
        await fleet.refresh()
        one.answers_after = FRESH_SECONDS * 1.6
        place = ProposeExecutor(fleet)

        async def propose_twenty_a_second() -> None:
            while True:
                proposed = Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key=str(len(proposals))))
                proposals.append(asyncio.create_task(place(proposed)))
                await asyncio.sleep(0.05)

        proposing = asyncio.create_task(propose_twenty_a_second())
        await until(lambda: one.polls > 1)
        newer: list[bool] = []
        for _ in range(3):
            heard = one.polls
            await fleet.refresh()
            newer += [member.state.clock_ms > 1000 + heard for member in fleet.seen if member.state]
        proposing.cancel()
        await asyncio.gather(proposing, *proposals, return_exceptions=True)
        await fleet.close()
    assert newer == [True, True, True]


async def test_a_look_nobody_waits_for_any_more_still_counts(client: ServiceClient) -> None:
    one, now = FakeExecutor("one"), [100.0]
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client, clock=lambda: now[0])
        await fleet.refresh()
        one.answers_after, one.live = FRESH_SECONDS * 1.6, 3
        now[0] += FRESH_SECONDS + 0.1
        await fleet.freshen()
        assert live(fleet) == [0], "it has waited long enough"
        await until(lambda: live(fleet) == [3])
        assert one.polls == 2
        await fleet.close()


async def test_an_executor_whose_look_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, client: ServiceClient) -> None:
    broken, unspeakable = "http://127.0.0.1:1", f"http://{'a' * 64}:1"
    ask = client.call

    async def call(method: str, path: str, **how: Any) -> ExecutorState:
        if path.startswith(broken + "/"):
            raise RuntimeError("nobody foresaw that")
        return await ask(method, path, **how)

    monkeypatch.setattr(client, "call", call)
    async with serving(FakeExecutor("one").app()) as url:
        fleet = ExecutorFleet([broken, unspeakable, url], client)
        await fleet.refresh()
        assert {member.url: member.reason for member in fleet.members} == {
            broken: "it could not be asked (RuntimeError)",
            unspeakable: "the name does not resolve",
            url: None,
        }
