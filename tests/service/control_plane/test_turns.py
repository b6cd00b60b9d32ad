"""Whose turn it is in a workspace, and what a run goes on with when its turn comes."""

from __future__ import annotations

import pytest

from control_plane.domain.line import Caps
from control_plane.runs.interrupt import InterruptSession
from control_plane.storage.runs import RunStore
from shared.contracts.runs import OnSessionBusy
from tests.service.control_plane.conftest import Stores, new_run
from tests.service.control_plane.test_busy_workspaces import CAPPED, RESUMES, UNCAPPED, accepted, claimed, over


async def put_the_clock_back(stores: Stores) -> None:
    """As if the database's clock had been an hour ahead until now."""
    await stores.pool.execute("UPDATE agent_runs SET created_at = created_at + interval '1 hour'")


@pytest.mark.parametrize("caps", [UNCAPPED, CAPPED], ids=["uncapped", "capped"])
async def test_a_workspace_keeps_its_order_when_the_clock_is_put_back(stores: Stores, caps: Caps) -> None:
    runs = RunStore(stores.pool, caps=caps)
    await stores.runs.create(new_run(**RESUMES), None)
    [lease] = await runs.claim(100, 60)
    await accepted(stores, lease)
    await put_the_clock_back(stores)
    second, third = [await stores.runs.create(new_run(f"run_{name}", **RESUMES), None) for name in "zy"]
    assert (await claimed(runs), await stores.runs.interrupted(None)) == ([], [])
    await over(stores, lease)
    [lease] = await runs.claim(100, 60)
    assert lease.run_id == second
    await over(stores, lease)
    assert await claimed(runs) == [third]


async def test_an_interrupt_finds_the_runs_before_it_though_the_clock_was_put_back(stores: Stores) -> None:
    first = await stores.runs.create(new_run(**RESUMES), None)
    await put_the_clock_back(stores)
    newest = await stores.runs.create(new_run(**RESUMES, on_session_busy=OnSessionBusy.INTERRUPT), None)
    assert await stores.runs.interrupted(newest) == [(first, newest)]
    await InterruptSession(stores.runs, stores.log)(newest)
    assert await claimed(stores.runs) == [newest]
