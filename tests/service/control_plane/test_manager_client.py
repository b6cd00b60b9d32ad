"""Several managers in front of the same executors, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.manager_client import ManagerClient
from shared.contracts.provider_runs import LeashQuote, RenewLeash
from shared.http import UnknownOutcomeError
from tests.loopback import serving
from tests.service.control_plane.fake_manager import FakeExecutor, FakeManager

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


async def test_a_manager_that_hangs_costs_one_call_and_is_left_out(
    client: ManagerClient, manager: FakeManager, another: FakeManager
) -> None:
    async def hang(_manager: FakeManager, _executor: FakeExecutor, _body: dict[str, Any]) -> None:
        await asyncio.sleep(30)  # the scripted manager takes its time

    manager.moods["renew"].extend([hang] * 10)
    with pytest.raises(UnknownOutcomeError):
        await client.renew("one", NOTHING, timeout=0.2)
    await calls(client, 5)
    assert manager.calls["renew"] == 1


async def test_a_manager_that_is_not_there_costs_nothing(manager_url: str, manager: FakeManager) -> None:
    client = ManagerClient(["http://127.0.0.1:1", manager_url], None, 5.0)
    await calls(client, 5)
    assert manager.calls["renew"] == 5
    await client.close()
