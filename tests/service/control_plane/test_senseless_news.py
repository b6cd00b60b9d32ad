"""News that make no sense, and words the database does not take: refused for their run alone, and by name."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.runs.record import Recorder
from control_plane.storage.run_log import Refused, Write
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode, RunyardError
from tests.service.control_plane.conftest import Replica, Stores, frame, new_run, running
from tests.service.control_plane.fake_manager import FakeManager


@pytest.mark.parametrize(("kind", "data"), [
    ("attempt.ended", '{"outcome":"exploded"}'),
    ("interaction.requested", '{"prompt":"without an id"}'),
    ("interaction.requested", '{"questionId":"q1","type":"from_the_future","prompt":"which?"}'),
    ("interaction.requested", '{"questionId":"q1","type":"question"}'),
    ("session.started", "{}"),
    ("attempt.started", '{"timeouts":{}}'),
    ("attempt.ended", "not json"),
])  # fmt: skip
async def test_news_that_make_no_sense_are_refused_for_their_run_alone(stores: Stores, kind: str, data: str) -> None:
    bad, good = await stores.started(), await stores.started()
    recorder = Recorder(stores.log)
    loop = asyncio.ensure_future(recorder.run())
    async with running(loop):
        results = await asyncio.gather(
            recorder.record(bad, [frame(1, kind, data)]), recorder.record(good, [frame(1)]), return_exceptions=True
        )
        assert isinstance(results[0], Refused)
        assert not isinstance(results[1], BaseException)
        await recorder.record(good, [frame(2)])
        assert not loop.done()


async def test_a_question_that_nobody_could_read_ends_its_run_and_stands_in_no_list(
    replica: Replica, manager: FakeManager, stores: Stores
) -> None:
    mad, sane = await replica.start(), await replica.start()
    (await manager.begun(mad)).say("interaction.requested", {"questionId": "q1", "type": "form", "prompt": "which?"})
    (await manager.begun(sane)).ask("q1")
    await replica.until(sane, "waiting_user")
    assert (await replica.until(mad, "error"))["errorCode"] == "internal"
    inbox = await replica.http.get("/api/human-loop/pending")
    assert [each["runId"] for each in inbox.json()["items"]] == [sane]
    assert await stores.pool.fetchval("SELECT count(*) FROM interactions WHERE run_id = $1", mad) == 0


async def test_an_error_code_of_a_newer_executor_ends_the_run_with_one_of_ours(stores: Stores) -> None:
    lease = await stores.started()
    ending = '{"outcome":"error","errorCode":"from_the_future","errorMessage":"odd","activeMs":1}'
    await stores.log.write([Write(lease.run_id, [frame(1, "attempt.ended", ending)], lease.token)])
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert (row.status, row.error_code, row.error_message) == (RunStatus.ERROR, ErrorCode.INTERNAL, "odd")


@pytest.mark.parametrize("kind", ["run.status", "attempt.lost", "stream.gap"])
async def test_an_executor_cannot_say_what_only_we_say(stores: Stores, kind: str) -> None:
    lease = await stores.started()
    before = await stores.kinds(lease.run_id)
    await stores.log.write([Write(lease.run_id, [frame(1, kind, '{"status":"success"}')], lease.token)])
    assert await stores.kinds(lease.run_id) == before


async def test_a_result_with_a_nul_character_can_be_read_back(stores: Stores) -> None:
    lease = await stores.started()
    ending = '{"outcome":"success","activeMs":1,"result":"a\\u0000b"}'
    await stores.log.write([Write(lease.run_id, [frame(1, "attempt.ended", ending)], lease.token)])
    assert (await stores.runs.driven(lease.run_id)).attempt_ended
    row = await stores.runs.snapshot(lease.run_id)
    assert row is not None
    assert row.outcome is not None
    assert row.outcome["result"] == "a\0b"


# ---- what callers send ----


async def test_what_the_database_cannot_look_for_is_a_bad_request(stores: Stores) -> None:
    for ask in (stores.runs.snapshot("run\0"), stores.interactions.one("run\0", "q"), stores.runs.by_engine_session("s\0", None)):
        with pytest.raises(RunyardError) as refusal:
            await ask
        assert refusal.value.code is ErrorCode.INVALID_REQUEST


async def test_metadata_that_grow_when_they_are_stored_are_refused_by_name(stores: Stores) -> None:
    with pytest.raises(RunyardError) as refusal:
        await stores.runs.create(new_run(metadata={"k": [1e300] * 500}), None)
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert "metadata" in refusal.value.detail


async def test_a_refusal_does_not_tell_what_stood_in_the_row(stores: Stores) -> None:
    lease = await stores.started()
    poison = frame(1, "log", '{"stream":"stdout","byteFrom":0,"base64":"c2VjcmV0%%%"}')
    with pytest.raises(Refused) as refusal:
        await stores.log.write([Write(lease.run_id, [poison], lease.token)])
    assert "c2VjcmV0" not in str(refusal.value)
