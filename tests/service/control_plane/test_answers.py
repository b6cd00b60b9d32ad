"""What callers may send that no column takes, and what they are told: never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from control_plane.storage.run_log import Write
from shared.contracts.runs import MAX_METADATA_BYTES
from tests.service.control_plane.conftest import Replica, Stores, frame, replica_at
from tests.service.control_plane.fake_manager import FakeManager

LONG_AGO = "0001-01-01T00:00:00%2B14:00"


@pytest.mark.parametrize(("path", "status"), [
    ("/api/runs/%00", 404), ("/api/runs/a%00b/stream", 404), ("/api/runs/a%00b/events", 404),
    ("/api/runs?sessionId=%00", 422), ("/api/runs?source=a%00", 422), ("/api/runs?%00=1", 422),
    (f"/api/runs?from={LONG_AGO}", 422), (f"/api/runs?to={LONG_AGO}", 422),
    ("/api/runs?to=0.5", 422), ("/api/runs?from=1767225600", 422), ("/api/runs?from=2026-01-01T00:00:00", 422),
])  # fmt: skip
async def test_a_read_of_what_cannot_exist_is_refused(replica: Replica, path: str, status: int) -> None:
    answer = await replica.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


@pytest.mark.parametrize("body", [
    '{"prompt":"x","metadata":{"k":1e999}}',
    '{"prompt":"x","metadata":{"k":[' + ",".join(["1e300"] * 500) + "]}}",
    '{"prompt":"x","model":"a\\u0000"}',
    '{"prompt":"x","resumeSessionId":"a\\u0000"}',
    '{"prompt":"x","resumeRunId":"a\\u0000"}',
    '{"prompt":"x","providerOptions":{"outputSchema":"x"}}',
    '{"prompt":"x","providerOptions":{"outputSchema":{"type":"objekt"}}}',
    '{"prompt":"x","providerOptions":{"outputSchema":{"$ref":"http://127.0.0.1:1/x"}}}',
    '{"prompt":"x","providerOptions":{"outputSchema":{"pattern":"(\\\\p{L}|\\\\p{N}){180}"}}}',
    '{"prompt":"x","providerOptions":{"outputSchema":{"description":"' + "x" * 65_536 + '"}}}',
])  # fmt: skip
async def test_a_start_that_cannot_be_stored_is_refused(replica: Replica, body: str) -> None:
    answer = await replica.http.post("/api/runs/start", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


NUL = "a\0b"
SIX_CHARACTERS = r"a\u0000b"  # of which a NUL's escape is made, and which are text like any other


@pytest.mark.parametrize(("field", "body"), [
    ("prompt", {"prompt": NUL}), ("messages.0.content", {"messages": [{"content": NUL}]}),
    ("model", {"model": NUL}), ("executionProfile", {"executionProfile": NUL}), ("resumeRunId", {"resumeRunId": NUL}),
    ("resumeSessionId", {"resumeSessionId": NUL}), ("tools", {"tools": {NUL: True}}), ("env.A", {"env": {"A": NUL}}),
    ("providerOptions.note", {"sessionId": "s", "providerOptions": {"note": NUL}}),
    ("providerOptions.notes.0.deep", {"providerOptions": {"notes": [{"deep": {NUL: 1}}]}}),
    ("providerOptions.expiryAnswer", {"providerOptions": {"onExpiry": "answer", "expiryAnswer": NUL}}),
    ("metadata.k.0", {"metadata": {"k": [NUL]}}), ("metadata", {"metadata": {NUL: 1}}),
])  # fmt: skip
async def test_a_start_with_a_nul_anywhere_is_refused_by_the_fields_name(
    replica: Replica, field: str, body: dict[str, Any]
) -> None:
    given = body if "messages" in body else {"prompt": "x", **body}
    answer = await replica.http.post("/api/runs/start", json={"provider": "scripted", **given})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert (await replica.http.get("/api/runs")).json()["items"] == []


async def test_the_characters_a_nul_is_written_with_are_text(replica: Replica, manager: FakeManager) -> None:
    said = {"note": SIX_CHARACTERS}
    run_id = await replica.start(prompt=SIX_CHARACTERS, metadata=said, providerOptions=said, sessionId="s")
    attempt = await manager.begun(run_id)
    assert (attempt.request["messages"][0]["content"], attempt.request["providerOptions"]) == (SIX_CHARACTERS, said)
    assert (await replica.show(run_id))["metadata"] == said


async def test_what_is_said_to_a_run_with_a_nul_is_refused_and_changes_nothing(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.ask("q1")
    attempt.ask("p1", "permission")
    await replica.until(run_id, "waiting_user")
    before = await replica.events(run_id)
    refused = {
        "answer": await replica.reply(run_id, "q1", answer=NUL),
        "answer.0": await replica.reply(run_id, "q1", answer=[NUL]),
        "answer.which?": await replica.reply(run_id, "q1", answer={"which?": NUL}),
        "message": await replica.reply(run_id, "p1", decision="accept", message=NUL),
        "text": await replica.http.post(f"/api/runs/{run_id}/messages", json={"text": NUL}),
    }
    for field, answer in refused.items():
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text
    assert await replica.events(run_id) == before
    assert (await replica.reply(run_id, "q1", answer=SIX_CHARACTERS)).status_code == 200


@pytest.mark.parametrize(("field", "value"), [
    ("priority", '"5"'), ("priority", "1.5"), ("requireHumanLoop", '"yes"'), ("requireHumanLoop", "1"), ("tools", '{"shell":1}'),
])  # fmt: skip
async def test_a_value_of_another_type_is_refused_not_guessed(replica: Replica, field: str, value: str) -> None:
    answer = await replica.http.post("/api/runs/start", content=f'{{"prompt":"x","{field}":{value}}}')
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].split(".")[0] == field


async def test_a_whole_number_may_be_written_with_its_point(replica: Replica) -> None:
    assert (await replica.http.post("/api/runs/start", content='{"prompt":"x","priority":5.0}')).status_code == 202


@pytest.mark.parametrize("reply", [
    {"runId": "a\0", "questionId": "q", "answer": "x"}, {"runId": "r", "questionId": "q\0", "answer": "x"},
])  # fmt: skip
async def test_a_reply_to_what_cannot_exist_is_refused(replica: Replica, reply: dict[str, Any]) -> None:
    assert (await replica.http.post("/api/human-loop/reply", json=reply)).status_code in (404, 422)


@pytest.mark.parametrize("metadata", [
    {"笔记": "中" * 5_400}, {str(number): [number, None, 1.5, "é"] for number in range(520)}, {"x": "\\\"\n\x7f\u2028" * 1_500},
])  # fmt: skip
async def test_metadata_is_measured_as_it_is_stored(replica: Replica, stores: Stores, metadata: dict[str, Any]) -> None:
    room = MAX_METADATA_BYTES - len(json.dumps({**metadata, "pad": ""}, ensure_ascii=False).encode())
    whole = {**metadata, "pad": "x" * room}
    run_id = await replica.start(metadata=whole)
    assert (await replica.show(run_id))["metadata"] == whole
    assert await stores.pool.fetchval("SELECT octet_length(metadata::text) FROM agent_runs") == MAX_METADATA_BYTES
    more = {"prompt": "x", "metadata": {**whole, "pad": "x" * (room + 1)}}
    answer = await replica.http.post("/api/runs/start", json=more)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "metadata")


@pytest.mark.parametrize("answer", ["é" * 32_768, ["x" * 30_000] * 3, {"which?": "x" * 65_536}])
async def test_a_reply_has_a_bound(replica: Replica, manager: FakeManager, answer: Any) -> None:
    run_id = await replica.start()
    (await manager.begun(run_id)).ask()
    await replica.until(run_id, "waiting_user")
    refused = await replica.reply(run_id, "q1", answer=answer)
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    assert refused.json()["detail"].startswith("answer: ")
    assert (await replica.reply(run_id, "q1", answer="é" * 32_000)).status_code == 200


async def test_the_head_of_a_stream_is_not_the_stream(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    answer = await replica.http.head(f"/api/runs/{run_id}/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    attempt.end()
    await replica.until(run_id, "success")


async def test_pages_of_events_end_where_their_bytes_do(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    for number in range(20):
        attempt.say("message.completed", {"messageId": f"m{number}", "text": "x" * 1_000_000})
    attempt.end()
    await replica.until(run_id, "success")
    seen: list[int] = []
    after: str | None = "0"
    pages = 0
    while after is not None:
        page = (await replica.http.get(f"/api/runs/{run_id}/events", params={"after": after, "limit": 5000})).json()
        seen += [each["cursor"] for each in page["items"]]
        after = page["nextCursor"]
        pages += 1
    assert seen == list(range(1, 26))
    assert pages == 2


async def walked(replica: Replica, path: str) -> list[list[dict[str, Any]]]:
    """All pages of a list, none of which weighs much."""
    pages: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while not pages or cursor:
        answer = await replica.http.get(path, params={"limit": 500, **cursor})
        assert len(answer.content) < 16 * 1024 * 1024
        pages.append(answer.json()["items"])
        cursor = {"cursor": following} if (following := answer.json()["nextCursor"]) else {}
    return pages


async def test_a_list_of_runs_ends_its_pages_where_their_results_are_large(
    stores: Stores, database: str, manager_url: str
) -> None:
    ids = [(await stores.started()).run_id for _ in range(20)]
    for run_id in ids:
        data = {"outcome": "success", "activeMs": 1, "result": "é" * 1_000_000}
        await stores.log.write([Write(run_id, [frame(1, "attempt.ended", json.dumps(data, ensure_ascii=False))])])
    async with replica_at(database, manager_url) as replica:  # now that it has nothing to drive
        pages = await walked(replica, "/api/runs")
    assert [each["runId"] for page in pages for each in page] == ids[::-1]
    assert all(len(each["result"]) == 1_000_000 for page in pages for each in page)
    assert [len(page) for page in pages] == [5, 5, 5, 5]


async def test_the_inbox_ends_its_pages_where_their_questions_are_large(stores: Stores, database: str, manager_url: str) -> None:
    lease = await stores.started()
    ids = [f"q1-{number:02}" for number in range(20)]
    for number, question_id in enumerate(ids, 1):
        data = {"questionId": question_id, "type": "question", "prompt": "x" * 2_000_000}
        await stores.log.write([Write(lease.run_id, [frame(number, "interaction.requested", json.dumps(data))])])
    async with replica_at(database, manager_url) as replica:  # the run is driven by another one
        pages = await walked(replica, "/api/human-loop/pending")
        shown = await replica.show(lease.run_id)
    assert [each["questionId"] for page in pages for each in page] == ids
    assert [len(page) for page in pages] == [5, 5, 5, 5]
    assert len(shown["pendingQuestions"]) == 5
