"""How many runs of an app and of a provider may live at once: those above wait, and hold nobody up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from control_plane.domain.lifecycle import Signal
from control_plane.domain.line import Caps
from control_plane.domain.news import Move
from control_plane.domain.run import Lease
from control_plane.storage.run_log import Write
from control_plane.storage.runs import RunStore
from shared.contracts.providers import Provider
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import Stores, new_run, replica_at
from tests.service.control_plane.fake_manager import FakeManager


async def queue(stores: Stores, *apps: str | None, **more: Any) -> list[str]:
    return [await stores.runs.create(new_run(app_id=app, **more), None) for app in apps]


def capped(stores: Stores, apps: str = "", providers: str = "") -> RunStore:
    return RunStore(stores.pool, caps=Caps.told(apps, providers))


async def claimed(runs: RunStore, limit: int = 100) -> list[Lease]:
    return await runs.claim(limit, 60)


async def over(stores: Stores, lease: Lease) -> None:
    await stores.log.write([Write(lease.run_id, [Move(Signal.GIVEN_UP, ErrorCode.INTERNAL)], lease.token)])


async def test_an_app_has_as_many_living_runs_as_it_may_and_holds_nobody_up(stores: Stores) -> None:
    shop = await queue(stores, "shop", "shop", "shop")
    others = await queue(stores, "bank", None, None, None)
    runs = capped(stores, "shop=2,*=1")
    leases = await claimed(runs)
    assert {lease.run_id for lease in leases} == {*shop[:2], *others}
    assert await claimed(runs) == []
    await over(stores, next(lease for lease in leases if lease.run_id == shop[0]))
    assert [lease.run_id for lease in await claimed(runs)] == [shop[2]]


async def test_a_provider_that_is_full_lets_runs_of_the_same_app_on_others_pass(stores: Stores) -> None:
    scripted = await queue(stores, "shop", "shop")
    [codex] = await queue(stores, "shop", provider=Provider.CODEX_APP_SERVER)
    runs = capped(stores, "shop=2", "scripted=1")
    assert {lease.run_id for lease in await claimed(runs)} == {scripted[0], codex}


async def test_a_living_run_without_a_driver_is_taken_whatever_the_cap(stores: Stores) -> None:
    lease = await stores.started("living")
    await stores.pool.execute("UPDATE run_heads SET lease_until = now() - interval '1 second'")
    waiting = await queue(stores, None)
    assert [each.run_id for each in await claimed(capped(stores, providers="scripted=1"))] == [lease.run_id]
    assert waiting


async def test_a_parked_run_takes_no_place(stores: Stores) -> None:
    await stores.started("parked")
    await stores.pool.execute("UPDATE run_heads SET lease_token = NULL, lease_until = NULL, claim_after = NULL")
    waiting = await queue(stores, None)
    assert [each.run_id for each in await claimed(capped(stores, providers="scripted=1"))] == waiting


async def test_dispatchers_that_claim_at_once_never_overstep_a_cap(stores: Stores, another_replica: Callable[[], Stores]) -> None:
    await queue(stores, *["shop"] * 20, *["bank"] * 20)
    replicas = [capped(each, "shop=5,bank=3") for each in (stores, another_replica(), another_replica())]
    apps: Counter[str] = Counter()
    for _ in range(4):
        for leases in await asyncio.gather(*(claimed(runs, 4) for runs in replicas)):
            for lease in leases:
                apps[await stores.pool.fetchval("SELECT app_id FROM agent_runs WHERE id = $1", lease.run_id)] += 1
    assert apps == {"shop": 5, "bank": 3}


async def test_more_waiting_runs_of_a_full_app_than_are_looked_at_hide_nobody(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.storage.claims.LOOKED_AT", 4)
    await queue(stores, *["shop"] * 10)
    [behind] = await queue(stores, "bank")
    runs = capped(stores, "shop=1")
    found = [lease.run_id for _ in range(3) for lease in await claimed(runs)]
    assert behind in found
    assert len(found) == 2


async def test_runs_above_a_cap_wait_in_the_queue_and_follow(database: str, manager: FakeManager, manager_url: str) -> None:
    async with replica_at(database, manager_url, provider_runs="scripted=1") as replica:
        first, second = await replica.start(), await replica.start()
        attempt = await manager.begun(first)
        await replica.until(first, "running")
        assert (await replica.show(second))["queuePosition"] == 1
        assert manager.attempts(second) == []
        attempt.end()
        (await manager.begun(second)).end()
        await replica.until(second, "success")


def test_a_cap_may_use_a_providers_old_name() -> None:
    assert Caps.told("", "codex=3, *=9").providers == {"codex-app-server": 3, "*": 9}


@pytest.mark.parametrize("text", ["shop", "shop=", "=3", "shop=0", "shop=-1", "shop=1.5", "shop=1,shop=2", "shop=x"])
def test_what_is_no_cap_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no cap"):
        Caps.told(text, "")


def test_a_cap_of_a_provider_nobody_knows_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="there is no provider"):
        Caps.told("", "nobody=1")
