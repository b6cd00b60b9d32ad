"""A page of events, the events of a start that waited, and the stream show one event as the same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.sse import FrameReader
from tests.service.control_plane.conftest import Replica, Stores
from tests.service.control_plane.fake_manager import FakeManager

# A time without a fraction, numbers and letters that JSON writes in several ways, and a kind of a release to come.
INSTANT = datetime(2026, 1, 31, 12, 0, 40, tzinfo=UTC)
DATA = '{"text":"gr\\u00fcn é","ratio":1E2,"code":"x","message":"y","big":12345678901234567890123}'
RAW_REF = '{"attempt":1,"stream":"stdout","byteFrom":0,"byteTo":7}'


async def shown_oddly(stores: Stores, run_id: str) -> None:
    """Rewrite the log's rows, so that a second encoder could not help but write them otherwise."""
    for cursor, kind, raw_ref in ((1, "run.status", None), (2, "word.of.tomorrow", None), (3, "diagnostic", RAW_REF)):
        data = '{"status":"queued","reason":"created"}' if cursor == 1 else DATA
        await stores.pool.execute(
            "UPDATE run_events SET kind = $3, data = $4, raw_ref = $5, at = $6 WHERE run_id = $1 AND cursor = $2",
            run_id, cursor, kind, data, raw_ref, INSTANT + timedelta(seconds=cursor),
        )  # fmt: skip


async def ended(replica: Replica, manager: FakeManager, **more: Any) -> str:
    run_id = await replica.start(**more)
    attempt = await manager.begun(run_id)
    attempt.say("message.completed", {"messageId": "m", "text": "hi"})
    attempt.end()
    await replica.until(run_id, "success")
    return run_id


async def test_a_page_holds_the_bytes_of_the_stream(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    run_id = await ended(replica, manager)
    await shown_oddly(stores, run_id)
    streamed = [frame.data for frame in FrameReader().feed((await replica.http.get(f"/api/runs/{run_id}/stream")).content)]
    page = await replica.http.get(f"/api/runs/{run_id}/events")
    assert page.status_code == 200, page.text
    assert page.content == b'{"items":[' + b",".join(streamed) + b'],"nextCursor":null}'
    first = await replica.http.get(f"/api/runs/{run_id}/events", params={"limit": 2})
    assert first.content == b'{"items":[' + b",".join(streamed[:2]) + b'],"nextCursor":"2"}'
    assert first.headers["content-type"] == "application/json"
    assert json.loads(streamed[1])["kind"] == "word.of.tomorrow"


async def test_a_start_that_waited_holds_them_too(replica: Replica, manager: FakeManager, stores: Stores) -> None:
    headers, body = {"idempotency-key": "k"}, {"provider": "scripted", "prompt": "hi"}
    run_id = (await replica.http.post("/api/runs/start", json=body, headers=headers)).json()["runId"]
    attempt = await manager.begun(run_id)
    attempt.say("message.completed", {"messageId": "m", "text": "hi"})
    attempt.end()
    await replica.until(run_id, "success")
    await shown_oddly(stores, run_id)
    page = await replica.http.get(f"/api/runs/{run_id}/events")
    waited = await replica.http.post("/api/runs/start?wait=5", json=body, headers=headers)
    assert waited.status_code == 200, waited.text
    events = page.content.removeprefix(b'{"items":').removesuffix(b',"nextCursor":null}')
    assert waited.content.endswith(b',"events":' + events + b"}")
    assert {"runId", "accepted", "warnings", "status", "links", "snapshot", "events"} == waited.json().keys()
