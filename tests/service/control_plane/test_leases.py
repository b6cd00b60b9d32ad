"""Leases are renewed until they are lost, given back, or gone with a write of our own; only the first is a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from control_plane.domain.run import Lease
from control_plane.runs.leases import Leases
from control_plane.runs.record import Recorder
from control_plane.storage.runs import RunStore
from tests.loopback import until
from tests.service.control_plane.conftest import Stores, frame, running

ENDED = '{"outcome":"success","activeMs":1}'


async def test_a_lease_that_went_with_the_end_of_its_run_is_not_taken_for_lost(stores: Stores) -> None:
    """What its driver does after the end, such as letting the executor forget the attempt, is not to be broken off."""
    lease, others = await stores.started(), await stores.started()
    leases, lost = Leases(stores.runs, 60, 0.02), list[str]()
    recorder = Recorder(stores.log, leases.drop)
    for each in (lease, Lease(others.run_id, uuid4())):  # the second one is somebody else's by now
        leases.hold(each, on_lost=lambda each=each: lost.append(each.run_id))
    async with running(recorder.run()):
        await recorder.record(lease, [frame(1, "attempt.ended", ENDED)])
        async with running(leases.run()):
            await until(lambda: bool(lost))
    assert lost == [others.run_id]


async def test_a_renewal_that_overtakes_the_word_of_the_end_takes_it_for_no_loss(stores: Stores) -> None:
    class EndsMeanwhile(RunStore):
        """The run ended while it was asked for, and whoever wrote that hears so a moment later."""

        async def renew(self, leases: Sequence[Lease], lease_seconds: float) -> set[str]:
            asyncio.get_running_loop().call_soon(renewed.drop, ending)
            return set()

    ending, taken = Lease("run_ending", uuid4()), Lease("run_taken", uuid4())
    renewed, lost = Leases(EndsMeanwhile(stores.pool), 60, 0.02), list[str]()
    for each in (ending, taken):
        renewed.hold(each, on_lost=lambda each=each: lost.append(each.run_id))
    async with running(renewed.run()):
        await until(lambda: bool(lost))
    assert lost == ["run_taken"]
