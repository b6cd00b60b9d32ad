"""What readers see of trimmed history, before, after and while it is trimmed: events or one gap, never a silent hole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from control_plane.manager_client import ManagerClient
from control_plane.runs.dispatch import Dispatcher
from control_plane.runs.follow import TailHub
from shared.sse import FrameReader
from tests.service.control_plane.conftest import Replica, Stores, replica_at
from tests.service.control_plane.kept_runs import ALL, DAY, Kept


@pytest.fixture
def kept(stores: Stores, manager_client: ManagerClient) -> Kept:
    return Kept(stores, manager_client)


@pytest.fixture
async def reading(kept: Kept, database: str, manager_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica that drives nothing: the runs are the test's own."""
    monkeypatch.setattr(Dispatcher, "_claim", _claims_nothing)
    async with replica_at(database, manager_url) as replica:
        yield replica


async def _claims_nothing(*_: object) -> int:
    return 0


async def frames(replica: Replica, run_id: str, **params: Any) -> list[tuple[str, str, dict[str, Any]]]:
    async with asyncio.timeout(20):
        answer = await replica.http.get(f"/api/runs/{run_id}/stream", params=params)
    assert answer.status_code == 200, answer.text
    return [(frame.id.decode(), frame.event.decode(), json.loads(frame.data)) for frame in FrameReader().feed(answer.content)]


async def trimmed(kept: Kept, **more: Any) -> str:
    run_id = await kept.run(days_ago=2.5, **more)
    await kept.sweep(ALL)
    return run_id


@pytest.mark.parametrize(("cursor", "gap"), [(0, {"from": 1, "to": 7}), (4, {"from": 5, "to": 7}), (6, {"from": 7, "to": 7})])
async def test_a_stream_over_trimmed_history_is_one_gap_and_the_end(kept: Kept, reading: Replica, cursor: int, gap: Any) -> None:
    run_id = await trimmed(kept)
    (id, kind, event), (last_id, last_kind, last) = await frames(reading, run_id, cursor=cursor)
    assert (id, kind, event["cursor"], event["data"]) == ("7", "stream.gap", 7, gap)
    assert (last_id, last_kind, last["data"]["status"]) == ("8", "run.status", "success")


async def test_a_stream_from_behind_the_gap_sees_none(kept: Kept, reading: Replica) -> None:
    run_id = await trimmed(kept)
    assert [kind for _, kind, _ in await frames(reading, run_id, cursor=7)] == ["run.status"]
    assert await frames(reading, run_id, cursor=8) == []


@pytest.mark.parametrize(("query", "seen"), [
    ({}, [("stream.gap", 7, {"from": 1, "to": 7}), ("run.status", 8, None)]),
    ({"after": 3}, [("stream.gap", 7, {"from": 4, "to": 7}), ("run.status", 8, None)]),
    ({"after": 2, "before": 6}, [("stream.gap", 5, {"from": 3, "to": 5})]),
    ({"after": 2, "before": 3}, []),
    ({"after": 7}, [("run.status", 8, None)]),
    ({"limit": 1}, [("stream.gap", 7, {"from": 1, "to": 7})]),
])  # fmt: skip
async def test_a_page_of_trimmed_history_says_which_events_are_gone(kept: Kept, reading: Replica, query: Any, seen: Any) -> None:
    run_id = await trimmed(kept)
    items = (await reading.http.get(f"/api/runs/{run_id}/events", params=query)).json()["items"]
    assert [(each["kind"], each["cursor"], each["data"] if each["kind"] == "stream.gap" else None) for each in items] == seen


async def test_the_flat_frames_warn_once_of_what_their_reader_has_not_seen(kept: Kept, reading: Replica) -> None:
    run_id = await trimmed(kept)
    whole = await frames(reading, run_id, view="workbench")
    assert [(id, kind) for id, kind, _ in whole] == [("7", "run.warning"), ("8", "run.status"), ("", "run.closed")]
    assert whole[0][2]["warning"] == "stream_gap: events 1 to 7 are no longer kept"
    resumed = await frames(reading, run_id, view="workbench", cursor=3)
    assert resumed[0][2]["warning"] == "stream_gap: events 4 to 7 are no longer kept"
    assert [kind for _, kind, _ in await frames(reading, run_id, view="workbench", cursor=7)] == ["run.status", "run.closed"]


async def test_a_log_says_how_much_of_it_is_gone(kept: Kept, reading: Replica) -> None:
    run_id = await kept.run(output=b"0123456789", days_ago=1.5)
    url = f"/api/runs/{run_id}/logs/stdout"
    before = (await reading.http.get(url, params={"byteFrom": 4})).json()
    assert (before["text"], before["totalBytes"], before["goneBytes"]) == ("456789", 10, 0)
    await kept.sweep(ALL)
    after = (await reading.http.get(url)).json()
    assert (after["text"], after["byteFrom"], after["byteTo"], after["totalBytes"], after["goneBytes"]) == ("", 0, 0, 10, 10)
    other = (await reading.http.get(f"/api/runs/{run_id}/logs/stderr")).json()
    assert (other["totalBytes"], other["goneBytes"]) == (0, 0)


async def test_what_is_marked_is_gone_for_readers_before_a_row_is_deleted(kept: Kept, reading: Replica) -> None:
    run_id = await kept.run(output=b"0123456789", days_ago=2.5)
    await kept.store.weigh()
    await kept.store.mark_old("output", "", DAY)
    assert (await reading.http.get(f"/api/runs/{run_id}/logs/stdout")).json()["goneBytes"] == 10
    await kept.store.delete_output()
    await kept.store.mark_old("events", "", 2 * DAY)
    assert len(await kept.cursors(run_id)) == 8
    assert [kind for _, kind, _ in await frames(reading, run_id)] == ["stream.gap", "run.status"]


async def test_a_reader_of_pages_that_is_overtaken_by_a_trim_sees_events_then_one_gap(kept: Kept, reading: Replica) -> None:
    """Whenever the trim comes, between any two of its steps: events, at most one gap, events; nothing is missing silently."""
    for pages_before in range(5):
        run_id = await kept.run(messages=20, days_ago=2.5)
        seen, after = 0, 0
        gaps: list[dict[str, int]] = []
        for page in range(100):
            if page == pages_before:
                await kept.sweep(ALL)
            answer = (await reading.http.get(f"/api/runs/{run_id}/events", params={"after": after, "limit": 4})).json()
            for each in answer["items"]:
                if each["kind"] == "stream.gap":
                    gaps.append(each["data"])
                    assert each["data"] == {"from": after + 1, "to": 24}
                else:
                    assert each["cursor"] == after + 1
                    seen += 1
                after = each["cursor"]
            if answer["nextCursor"] is None:
                break
        assert (after, len(gaps), seen) == (25, 1, 4 * pages_before + 1)


async def test_a_stream_that_is_overtaken_by_a_trim_has_no_silent_hole(
    kept: Kept, reading: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.runs.follow.PAGE", 5)
    hub = TailHub(kept.stores.runs, kept.stores.events)
    for blocks_before in range(4):
        run_id = await kept.run(messages=20, days_ago=2.5)
        following = hub.join(run_id, 0, 25)
        cursors: list[int] = []
        gaps = 0
        for block in range(100):
            if block == blocks_before:
                await kept.sweep(ALL)
            piece = await following.next(5)
            if piece is None:
                break
            for each in FrameReader().feed(piece):
                event = json.loads(each.data)
                expected = len(cursors) + 1 if not cursors else cursors[-1] + 1
                if event["kind"] == "stream.gap":
                    gaps += 1
                    assert event["data"] == {"from": expected, "to": 24}
                else:
                    assert event["cursor"] == expected
                cursors.append(event["cursor"])
        await following.close()
        assert (cursors[-1], gaps) == (25, 1)


async def test_a_stream_of_a_run_that_is_deleted_meanwhile_ends(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.runs.follow.PAGE", 5)
    run_id = await kept.run(messages=20, days_ago=3.5)
    following = TailHub(kept.stores.runs, kept.stores.events).join(run_id, 0, 25)
    assert await following.next(5)
    await kept.sweep(ALL)
    async with asyncio.timeout(20):
        assert await following.next(5) is None
    await following.close()


async def test_a_deleted_run_is_not_found(kept: Kept, reading: Replica) -> None:
    run_id = await kept.run(days_ago=9)
    await kept.sweep(ALL)
    for path in ("", "/events", "/stream", "/logs/stdout", "/files"):
        answer: httpx.Response = await reading.http.get(f"/api/runs/{run_id}{path}")
        assert answer.status_code == 404, path
    assert run_id not in [each["runId"] for each in (await reading.http.get("/api/runs")).json()["items"]]
