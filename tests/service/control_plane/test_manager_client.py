"""Several managers in front of the same executors, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from control_plane.manager_client import ManagerClient
from shared.contracts.provider_runs import LeashQuote, RenewLeash
from shared.errors import ErrorCode, RunyardError
from shared.http import UnknownOutcomeError
from tests.loopback import serving
from tests.service.control_plane.conftest import replica_at
from tests.service.control_plane.fake_manager import FakeExecutor, FakeManager, refuse

NOTHING = RenewLeash(quote=LeashQuote(instance="", clock_ms=0), attempts=[])


@pytest.fixture
def another() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def client(manager_url: str, another: FakeManager) -> AsyncIterator[ManagerClient]:
    async with serving(another.app()) as other_url:
        client = ManagerClient([manager_url, other_url], None, 5.0)
        yield client
        await client.close()


async def calls(client: ManagerClient, count: int) -> None:
    for _ in range(count):
        await client.renew("one", NOTHING, timeout=5.0)


async def test_all_managers_carry_the_load(client: ManagerClient, manager: FakeManager, another: FakeManager) -> None:
    """One that carried it alone, beside one that idled, once cost runs their attempts."""
    await calls(client, 10)
    assert manager.calls["renew"] == another.calls["renew"] == 5


async def hang(_manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
    await asyncio.sleep(30)  # the scripted manager takes its time


async def test_a_manager_that_hangs_costs_one_call_and_is_left_out(client: ManagerClient, manager: FakeManager) -> None:
    manager.moods["renew"].extend([hang] * 10)
    with pytest.raises(UnknownOutcomeError):
        await client.renew("one", NOTHING, timeout=0.2)
    await calls(client, 5)
    assert manager.calls["renew"] == 1


async def test_who_gives_up_before_a_manager_would_does_not_blame_it(
    client: ManagerClient, manager: FakeManager, another: FakeManager
) -> None:
    """Its executor may be the silent one: a frozen executor must not drive all calls to one manager."""
    manager.moods["show"].append(hang)
    with pytest.raises(UnknownOutcomeError):
        await client.show("one", "run_1", 1, timeout=0.2)
    await calls(client, 4)
    assert manager.calls["renew"] == another.calls["renew"] == 2


async def test_where_one_manager_has_no_way_to_the_executor_another_one_is_asked(
    client: ManagerClient, manager: FakeManager, another: FakeManager
) -> None:
    manager.moods["renew"].extend([refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=False)] * 10)
    await calls(client, 6)
    assert len(another.executors["one"].renewals) == 6


async def test_where_no_manager_has_a_way_its_own_word_is_told(
    client: ManagerClient, manager: FakeManager, another: FakeManager
) -> None:
    for each in (manager, another):
        each.executors["one"].gone = True
    with pytest.raises(RunyardError) as refused:
        await calls(client, 1)
    assert refused.value.code is ErrorCode.PROVIDER_UNAVAILABLE


async def test_a_call_that_may_have_been_heard_is_sent_to_one_manager_only(
    client: ManagerClient, manager: FakeManager, another: FakeManager
) -> None:
    manager.moods["renew"].append(refuse(ErrorCode.PROVIDER_UNAVAILABLE, sent=None))
    with pytest.raises(RunyardError):
        await calls(client, 1)
    assert another.calls["renew"] == 0


async def test_providers_that_cannot_be_had_are_told_to_be_unavailable(database: str) -> None:
    nonsense = Starlette(routes=[Route("/{path:path}", lambda _request: PlainTextResponse("nonsense"))])
    async with serving(nonsense) as manager_url, replica_at(database, manager_url) as replica:
        answer = await replica.http.get("/api/providers")
    assert (answer.status_code, answer.json()["code"]) == (503, "manager_unavailable")


async def test_a_manager_that_is_not_there_costs_nothing(manager_url: str, manager: FakeManager) -> None:
    client = ManagerClient(["http://127.0.0.1:1", manager_url], None, 5.0)
    await calls(client, 5)
    assert manager.calls["renew"] == 5
    await client.close()
