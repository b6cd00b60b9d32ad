"""Who the executors are: configuration, DNS and what each says, over real connections."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from executor_manager.fleet import ExecutorFleet
from shared.http import ServiceClient
from tests.fake_executor import FakeExecutor
from tests.loopback import serving, until, unused_port


@pytest.fixture
async def client():
    client = ServiceClient("", "t")
    yield client
    await client.close()


def by_url(fleet: ExecutorFleet) -> dict[str, bool]:
    return {member.url: member.reachable for member in fleet.members}


async def test_a_member_is_what_it_says_and_one_that_is_not_there_says_why(client: ServiceClient) -> None:
    one, nobody = FakeExecutor("one", live=2), f"http://127.0.0.1:{unused_port()}"
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url + "/", nobody], client)
        assert fleet.members == []
        assert not fleet.everyone_answers()
        await fleet.refresh()
        assert by_url(fleet) == {url: True, nobody: False}
        assert fleet.members[0].state == one.state()
        assert fleet.members[1].reason is not None
        assert not fleet.everyone_answers()
        assert (fleet.url_of("one"), fleet.url_of("two")) == (url, None)


async def test_a_host_name_with_several_addresses_is_several_executors(client: ServiceClient) -> None:
    """127.0.0.1, 127.0.0.2 and 127.0.0.3 stand for three hosts of one name."""
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return addresses

    async with AsyncExitStack() as stack:
        port = unused_port()
        for number, address in enumerate(addresses):
            await stack.enter_async_context(serving(FakeExecutor(f"e{number}").app(), port, host=address))
        fleet = ExecutorFleet([f"http://executor.internal:{port}"], client, resolve)
        await fleet.refresh()
        assert asked == [("executor.internal", port)]
        assert [member.state.executor_id for member in fleet.members if member.state] == ["e0", "e1", "e2"]
        assert fleet.url_of("e1") == f"http://127.0.0.2:{port}"


async def test_an_executor_that_leaves_dns_stays_as_long_as_it_answers(client: ServiceClient) -> None:
    listed = ["127.0.0.1"]

    async def resolve(_host: str, _port: int) -> list[str]:
        return listed

    one = FakeExecutor("one")
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([f"http://executor.internal:{urlsplit(url).port}"], client, resolve)
        await fleet.refresh()
        listed.clear()
        one.draining = True
        await fleet.refresh()
        assert fleet.url_of("one") == url
    await fleet.refresh()
    assert fleet.url_of("one") is None
    assert [member.reason for member in fleet.members] == ["the name does not resolve"]


async def test_a_silent_name_server_changes_nothing(client: ServiceClient) -> None:
    works = True

    async def resolve(_host: str, _port: int) -> list[str]:
        if not works:
            raise OSError("no answer")
        return ["127.0.0.1"]

    async with serving(FakeExecutor("one").app()) as url:
        fleet = ExecutorFleet([f"http://executor.internal:{urlsplit(url).port}"], client, resolve)
        await fleet.refresh()
        works = False
        await fleet.refresh()
        assert by_url(fleet) == {url: True}


async def test_one_failed_poll_is_forgiven_by_its_retry_and_a_second_one_is_not(client: ServiceClient) -> None:
    one = FakeExecutor("one")
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client)
        await fleet.refresh()
        one.broken = True
        before = one.polls
        await fleet.refresh()
        assert (one.polls - before, by_url(fleet)) == (2, {url: False})
        await fleet.refresh()
        assert one.polls - before == 3, "a member known to be unreachable is asked once a round"
        assert fleet.url_of("one") == url, "where it was is not forgotten"
        one.broken = False
        await fleet.refresh()
        assert by_url(fleet) == {url: True}


async def test_callers_at_the_same_time_share_one_round(client: ServiceClient) -> None:
    one = FakeExecutor("one")
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client)
        await asyncio.gather(*(fleet.refresh() for _ in range(50)))
        assert 1 <= one.polls <= 2


async def test_a_watched_fleet_follows_its_executors(client: ServiceClient) -> None:
    one = FakeExecutor("one")
    port = unused_port()
    fleet = ExecutorFleet([f"http://127.0.0.1:{port}"], client)
    watch = asyncio.ensure_future(fleet.watch())
    await until(lambda: len(fleet.members) == 1)
    assert not fleet.everyone_answers()
    async with serving(one.app(), port):
        await until(fleet.everyone_answers)
    await until(lambda: not fleet.everyone_answers())
    watch.cancel()
    await asyncio.wait((watch,))


async def test_a_start_on_its_way_counts_until_the_next_poll(client: ServiceClient) -> None:
    async with serving(FakeExecutor("one", live=1).app()) as url:
        fleet = ExecutorFleet([url], client)
        await fleet.refresh()
        fleet.expect_start("one")
        fleet.expect_start("one")
        assert [member.state.live for member in fleet.members if member.state] == [3]
        assert fleet.has_guesses
        await fleet.refresh()
        assert [member.state.live for member in fleet.members if member.state] == [1]
        assert not fleet.has_guesses
