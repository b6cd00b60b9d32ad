"""``?view=workbench`` over HTTP: live, replayed and resumed, it is one projection of the stored log."""

from __future__ import annotations

import asyncio

from control_plane.views.workbench import Workbench
from shared.sse import Frame, FrameReader
from tests.service.control_plane.conftest import Replica
from tests.service.control_plane.fake_manager import FakeManager


async def followed(replica: Replica, run_id: str, header: int | None = None, **query: str | int) -> bytes:
    """The frames of a stream, to its end, without its first line."""
    headers = {} if header is None else {"last-event-id": str(header)}
    answer = await replica.http.get(f"/api/runs/{run_id}/stream", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return b"\n\n".join(each for each in answer.content.split(b"\n\n") if each[:1] in (b"i", b"e", b"")).removeprefix(b"\n\n")


async def flat(replica: Replica, run_id: str, after: int = 0) -> bytes:
    """What the projection makes of the stored log."""
    view = Workbench(run_id, "scripted", after)
    return b"".join(view.frames(frame.data) for frame in FrameReader().feed(await followed(replica, run_id)))


async def finished(replica: Replica, manager: FakeManager) -> str:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("message.delta", {"messageId": "m1", "text": "on"})
    attempt.say("raw.stdout", {"text": "noise"})
    attempt.say("plan.updated", {"items": [{"text": "a"}, {"text": "b", "status": "completed"}]})
    attempt.say("message.completed", {"messageId": "m1", "text": "on"})
    attempt.end()
    await replica.until(run_id, "success")
    return run_id


def kinds(frames: bytes) -> list[str]:
    return [frame.event.decode() for frame in FrameReader().feed(frames)]


async def test_a_finished_run_is_replayed_flat_from_every_cursor(replica: Replica, manager: FakeManager) -> None:
    run_id = await finished(replica, manager)
    last = (await replica.show(run_id))["lastCursor"]
    whole = await followed(replica, run_id, view="workbench")
    assert kinds(whole) == ["run.status", "message.delta", "todo.update", "todo.update", "run.status", "run.closed"]
    for cursor in range(last + 1):
        expected = await flat(replica, run_id, cursor)
        assert whole.endswith(expected)
        assert await followed(replica, run_id, view="workbench", cursor=cursor) == expected
        assert await followed(replica, run_id, header=cursor, view="workbench", cursor=0) == expected


async def test_a_live_run_is_followed_flat_from_the_start_and_from_the_middle(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    await replica.until(run_id, "running")
    whole = asyncio.ensure_future(followed(replica, run_id, view="workbench"))
    attempt.say("message.delta", {"messageId": "m1", "text": "one"})
    attempt.ask()
    asked = await replica.until(run_id, "waiting_user")
    rest = asyncio.ensure_future(followed(replica, run_id, view="workbench", cursor=asked["lastCursor"]))
    assert (await replica.reply(run_id, "q1", answer="x")).status_code == 200
    attempt.say("interaction.resolved", {"questionId": "q1", "how": "answered", "answer": {"answer": "x"}})
    attempt.say("message.completed", {"messageId": "m1", "text": "one"})
    attempt.say("message.completed", {"messageId": "m2", "text": "two"})
    attempt.end(outcome="error", errorCode="model_unavailable", errorMessage="finish_reason:error", result=None)
    assert await whole == await flat(replica, run_id)
    assert await rest == await flat(replica, run_id, asked["lastCursor"])
    assert b'"detail":"model_unavailable: finish_reason:error"' in await rest


async def test_the_other_view_is_what_it_was_and_can_be_named(replica: Replica, manager: FakeManager) -> None:
    run_id = await finished(replica, manager)
    frames: list[Frame] = FrameReader().feed(await followed(replica, run_id))
    assert [int(frame.id) for frame in frames] == list(range(1, len(frames) + 1))
    assert await followed(replica, run_id, view="events") == await followed(replica, run_id)


async def test_a_view_nobody_knows_is_refused_by_the_name_of_its_field(replica: Replica, manager: FakeManager) -> None:
    answer = await replica.http.get(f"/api/runs/{await finished(replica, manager)}/stream", params={"view": "flat"})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["query.view"]


async def test_the_flat_view_refuses_what_the_other_refuses(replica: Replica, manager: FakeManager) -> None:
    run_id = await finished(replica, manager)
    path = f"/api/runs/{run_id}/stream"
    beyond = await replica.http.get(path, params={"view": "workbench", "cursor": 999})
    assert (beyond.status_code, beyond.json()["code"]) == (400, "invalid_request")
    nowhere = await replica.http.get("/api/runs/none/stream", params={"view": "workbench"})
    assert nowhere.status_code == 404
    other = await replica.http.get(path, params={"view": "workbench"}, headers=(await replica.key("other")).headers)
    assert other.status_code == 404


async def test_a_flat_reader_that_leaves_early_is_forgotten(replica: Replica, manager: FakeManager) -> None:
    run_id = await replica.start()
    attempt = await manager.begun(run_id)
    attempt.say("message.delta", {"messageId": "m1", "text": "one"})
    async with replica.http.stream("GET", f"/api/runs/{run_id}/stream", params={"view": "workbench"}) as response:
        blocks, heard = response.aiter_bytes(), b""
        async with asyncio.timeout(20):
            while b"message.delta" not in heard:
                heard += await anext(blocks)
        assert await readers(replica) == 1
    assert b"run.closed" not in heard
    async with asyncio.timeout(20):
        while await readers(replica):
            await asyncio.sleep(0.02)  # polling a condition with a bound
    attempt.end()
    await replica.until(run_id, "success")


async def readers(replica: Replica) -> float:
    metrics = (await replica.http.get("/metrics")).text
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("runyard_sse_readers "))
