"""Who the executors are: configuration, DNS and what each says, over real connections."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from executor_manager.fleet import EXPECT_SECONDS, ExecutorFleet, Resolver, by_dns
from executor_manager.locate import ProposeExecutor
from shared.contracts.provider_runs import Propose, WorkspaceRef
from shared.contracts.providers import Provider
from shared.http import ServiceClient
from tests.fake_executor import FakeExecutor
from tests.loopback import scripted_server, serving, until, unused_port


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


def load(fleet: ExecutorFleet) -> list[tuple[int, int]]:
    return [(member.state.live, member.reserved) for member in fleet.members if member.state]


async def test_a_start_on_its_way_counts_until_a_look_that_follows_its_answer(client: ServiceClient) -> None:
    one, now = FakeExecutor("one", live=1), [100.0]
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client, clock=lambda: now[0])
        await fleet.refresh()
        fleet.expect_start("one", "a")
        fleet.expect_start("one", "b")
        assert (load(fleet), fleet.has_guesses) == ([(1, 2)], True)
        now[0] += 0.1
        await fleet.refresh()
        assert load(fleet) == [(1, 2)], "neither has come there yet: the executor's figure is without them"
        now[0] += 0.1
        fleet.start_answered("one", "a")
        fleet.start_answered("one", "nobody expected it")
        assert load(fleet) == [(1, 2)]
        now[0] += 0.1
        await fleet.refresh()
        assert load(fleet) == [(1, 1)]
        now[0] += EXPECT_SECONDS
        await fleet.refresh()
        assert (load(fleet), fleet.has_guesses) == ([(1, 0)], False)


async def test_what_is_proposed_while_the_executors_are_asked_is_not_forgotten(client: ServiceClient) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()
    may_answer.set()

    async def resolve(_host: str, _port: int) -> list[str]:
        asked.set()
        await may_answer.wait()
        return ["127.0.0.1"]

    async with serving(FakeExecutor("one").app()) as url:
        fleet = ExecutorFleet([f"http://executor.internal:{urlsplit(url).port}"], client, resolve)
        await fleet.refresh()
        asked.clear()
        may_answer.clear()
        looking = asyncio.create_task(fleet.refresh())
        await asked.wait()
        fleet.expect_start("one", "a")
        fleet.start_answered("one", "a")
        may_answer.set()
        await looking
        assert load(fleet) == [(0, 1)], "the answer may be from before it came"


async def test_two_attempts_proposed_around_a_poll_go_to_two_executors(client: ServiceClient) -> None:
    async with serving(FakeExecutor("one").app()) as one, serving(FakeExecutor("two").app()) as two:
        fleet = ExecutorFleet([one, two], client)
        await fleet.refresh()
        place = ProposeExecutor(fleet)
        first = await place(Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="a")))
        await fleet.refresh()  # the control plane is still writing the attempt down
        second = await place(Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="b")))
        assert {first.executor_id, second.executor_id} == {"one", "two"}


def names(**addresses: list[str]) -> Resolver:
    """A name server whose answers are changed by changing the lists; a name that is gone has no address."""

    async def resolve(host: str, _port: int) -> list[str]:
        return list(addresses.get(host, []))

    return resolve


def seen(fleet: ExecutorFleet) -> list[tuple[str, str | None]]:
    """Where and who, of those who can be reached."""
    return [(member.url, member.state.executor_id if member.state else None) for member in fleet.members if member.reachable]


async def test_two_names_of_one_executor_are_one_executor(client: ServiceClient) -> None:
    async with serving(FakeExecutor("one").app(), host="0.0.0.0") as url:
        port = urlsplit(url).port
        fleet = ExecutorFleet(
            [f"http://a:{port}", f"http://b:{port}"], client, names(a=["127.0.0.1"], b=["127.0.0.1", "127.0.0.2"])
        )
        for _ in range(2):
            await fleet.refresh()
            assert seen(fleet) == [(f"http://127.0.0.1:{port}", "one")]
            assert fleet.members[0].also_at == [f"http://127.0.0.2:{port}"]
            assert fleet.everyone_answers()


async def test_an_executor_known_at_one_address_stays_there_while_it_answers(client: ServiceClient) -> None:
    listed = {"a": ["127.0.0.2"]}
    async with serving(FakeExecutor("one").app(), host="0.0.0.0") as url:
        port = urlsplit(url).port
        fleet = ExecutorFleet([f"http://a:{port}"], client, names(**listed))
        await fleet.refresh()
        listed["a"][:] = ["127.0.0.1", "127.0.0.2"]
        await fleet.refresh()
        assert seen(fleet) == [(f"http://127.0.0.2:{port}", "one")]


async def test_two_executors_with_one_id_are_not_mistaken_for_each_other(client: ServiceClient) -> None:
    first, second = FakeExecutor("one"), FakeExecutor("one", instance="another life")
    async with serving(first.app()) as here, serving(second.app()) as there:
        fleet = ExecutorFleet([there, here], client)
        await fleet.refresh()
        assert seen(fleet) == [(there, "one")]
        silent = next(member for member in fleet.members if member.url == here)
        assert silent.reason == f"it calls itself one as {there} does"
        assert fleet.url_of("one") == there
        second.broken = True
        await fleet.refresh()
        assert seen(fleet) == [(here, "one")], "the other one is gone: this is who it is now"
        second.broken = False
        await fleet.refresh()
        assert seen(fleet) == [(here, "one")], "who was known before stays"


async def test_a_new_life_at_another_address_is_where_the_id_is_now(client: ServiceClient) -> None:
    old, new = FakeExecutor("one"), FakeExecutor("one", instance="new")
    async with serving(old.app()) as here, serving(new.app()) as there:
        new.broken = True
        fleet = ExecutorFleet([here, there], client)
        await fleet.refresh()
        assert fleet.url_of("one") == here
        old.broken, new.broken = True, False
        await fleet.refresh()
        assert fleet.url_of("one") == there
        assert [member.reachable for member in fleet.members] == [False, True]


async def test_another_life_at_the_same_address_is_told_by_its_instance(client: ServiceClient) -> None:
    one = FakeExecutor("one")
    async with serving(one.app()) as url:
        fleet = ExecutorFleet([url], client)
        await fleet.refresh()
        one.instance = "second life"
        await fleet.refresh()
        assert [member.state.instance for member in fleet.members if member.state] == ["one-second life"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"status":"a"}'[:-1],
        b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Down\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=["a web page", "other JSON", "a redirect", "no entrance", "a problem", "no HTTP", "silence"],
)
async def test_an_address_that_is_no_executor_is_unreachable_with_a_reason_and_disturbs_nobody(
    client: ServiceClient, answer: bytes
) -> None:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with scripted_server(script) as stranger, serving(FakeExecutor("one").app()) as url:
        fleet = ExecutorFleet([stranger, url], client)
        await fleet.refresh()
        assert seen(fleet) == [(url, "one")]
        assert (fleet.members[0].url, fleet.members[0].state) == (stranger, None)
        assert fleet.members[0].reason


async def test_a_name_whose_addresses_come_and_go_is_followed(client: ServiceClient) -> None:
    listed: dict[str, list[str]] = {"executor": []}
    async with AsyncExitStack() as stack:
        port = unused_port()
        for number in (1, 2, 3):
            await stack.enter_async_context(serving(FakeExecutor(f"e{number}").app(), port, host=f"127.0.0.{number}"))
        fleet = ExecutorFleet([f"http://executor:{port}"], client, names(**listed))
        await fleet.refresh()
        assert [(member.url, member.reason) for member in fleet.members] == [
            (f"http://executor:{port}", "the name does not resolve")
        ]
        for now, known in [
            (["127.0.0.1"], ["e1"]),
            (["127.0.0.1", "127.0.0.3"], ["e1", "e3"]),
            (["127.0.0.2", "127.0.0.1", "127.0.0.2"], ["e2", "e1", "e3"]),
            ([], ["e2", "e1", "e3"]),
            (["127.0.0.3"], ["e3", "e2", "e1"]),
        ]:
            listed["executor"][:] = now
            await fleet.refresh()
            assert [name for _, name in seen(fleet)] == known, "who left the name and answers still is still there"


async def test_a_name_that_never_answered_and_fails_is_no_reason_to_stop(client: ServiceClient) -> None:
    async def resolve(host: str, _port: int) -> list[str]:
        if host == "hangs":
            await asyncio.Event().wait()
        raise OSError("no such name")

    async with serving(FakeExecutor("one").app()) as url:
        fleet = ExecutorFleet(["http://fails:1", "http://hangs:1", url], client, resolve)
        await fleet.refresh()
        assert seen(fleet) == [(url, "one")]
        reasons = {member.url: member.reason for member in fleet.members if not member.reachable}
        assert reasons == dict.fromkeys(["http://fails:1", "http://hangs:1"], "the name does not resolve")


async def test_a_name_the_system_knows_is_looked_up_by_the_system() -> None:
    assert "127.0.0.1" in await by_dns("localhost", 80)
    with pytest.raises(OSError, match=r".+"):
        await by_dns("no-such-name.invalid", 80)
