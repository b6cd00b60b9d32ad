"""Stops in every phase, refusals that change nothing, and who may see what."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import httpx
import pytest

from tests.e2e.kit import Stack, gone, processes_with, script, soon

STUBBORN = script({"ignoreTerm": True}, {"spawn": ["sleep", "300"], "setsid": True}, {"say": "up"}, {"hang": True})


async def until_said(stack: Stack, run_id: str, text: str) -> None:
    async with stack.stream(run_id) as frames:
        async for frame in frames:
            if text.encode() in frame.data:
                return
    raise AssertionError(f"{run_id} ended without saying {text}")


async def test_stopping_a_running_run_ends_its_tree_and_is_idempotent(stack: Stack) -> None:
    run_id = await stack.start(script({"say": "up"}, {"hang": True}))
    await until_said(stack, run_id, "up")
    answers = [(await stack.stop(run_id)).json()["status"] for _ in range(2)]
    assert set(answers) <= {"stopping", "canceled"}
    shown = await stack.until(run_id)
    assert (shown["status"], shown["errorCode"]) == ("canceled", "user_canceled")
    assert (await stack.stop(run_id)).json()["status"] == "canceled"
    await stack.check(run_id)


async def test_a_stop_is_quick_for_an_engine_that_obeys(stack: Stack) -> None:
    took: list[float] = []
    for _ in range(9):
        run_id = await stack.start(script({"say": "up"}, {"hang": True}))
        await until_said(stack, run_id, "up")
        [pid] = processes_with("RUNYARD_RUN", f"{run_id}.")
        began = time.monotonic()
        await stack.stop(run_id)
        await gone(pid)
        took.append(time.monotonic() - began)
        await stack.until(run_id)
    assert statistics.median(took) < 1.5  # generous: 150 ms on an idle machine


async def test_an_engine_that_ignores_term_and_has_a_child_elsewhere_is_gone_after_its_grace(stack: Stack) -> None:
    run_id = await stack.start(STUBBORN)
    await until_said(stack, run_id, "up")
    assert len(processes_with("RUNYARD_RUN", f"{run_id}.")) >= 2
    await stack.stop(run_id)
    shown = await stack.until(run_id, within=15)
    assert shown["status"] == "canceled"
    assert processes_with("RUNYARD_RUN", f"{run_id}.") == []
    await stack.check(run_id)


async def test_stopping_while_a_person_is_asked_withdraws_the_question(stack: Stack) -> None:
    run_id = await stack.start(script({"ask": {"prompt": "?"}}))
    question = await stack.question(run_id)
    await stack.stop(run_id)
    assert (await stack.until(run_id))["status"] == "canceled"
    late = await stack.reply(run_id, question["questionId"], answer="late")
    assert (late.status_code, late.json()["interactionStatus"]) == (409, "withdrawn")
    await stack.check(run_id)


async def test_a_stop_at_once_after_the_start_ends_it_once(stack: Stack) -> None:
    runs = [await stack.start(script({"say": "up"}, {"hang": True})) for _ in range(8)]
    await asyncio.gather(*(stack.stop(run_id) for run_id in runs))
    for run_id in runs:
        assert (await stack.until(run_id))["status"] == "canceled"
        await stack.check(run_id)


async def test_a_stop_at_once_with_the_finish_ends_it_once(stack: Stack) -> None:
    for delay in range(12):
        run_id = await stack.start(script({"sleep": 0.05}, {"say": "done"}))
        await until_said(stack, run_id, "running")
        await asyncio.sleep(delay * 0.008)  # a different moment each time, not a synchronisation
        await stack.stop(run_id)
        assert (await stack.until(run_id))["status"] in ("canceled", "success")
        await stack.check(run_id)


async def test_runs_wait_in_the_queue_for_a_slot_and_can_be_stopped_there(stack: Stack) -> None:
    busy = [await stack.start(script({"say": "up"}, {"hang": True})) for _ in range(8)]
    for run_id in busy:
        await until_said(stack, run_id, "up")
    waiting = await stack.start("later")
    assert (await stack.show(waiting))["queuePosition"] == 1
    canceled = await stack.start("never")
    await stack.stop(canceled)
    assert (await stack.until(canceled))["status"] == "canceled"
    assert (await stack.show(waiting))["status"] == "queued"
    for run_id in busy:
        await stack.stop(run_id)
    assert (await stack.until(waiting))["status"] == "success"
    for run_id in (*busy, waiting, canceled):
        await stack.until(run_id)
        await stack.check(run_id)


BAD_STARTS: list[tuple[dict[str, Any], int, str]] = [
    ({"prompt": "x", "colour": "red"}, 422, "colour"),
    ({"prompt": 7}, 422, "prompt"),
    ({}, 422, "prompt"),
    ({"prompt": "x", "messages": [{"content": "y"}]}, 422, "prompt"),
    ({"prompt": ""}, 422, "prompt"),
    ({"prompt": "x", "provider": "nobody"}, 422, "provider"),
    ({"prompt": "x", "engineMode": "wild"}, 422, "engineMode"),
    ({"prompt": "x" * (1024 * 1024 + 1)}, 413, "prompt"),
    ({"messages": [{"content": "x", "role": "king"}]}, 422, "messages.0.role"),
    ({"prompt": "x", "metadata": {"k": "v" * 20_000}}, 422, "metadata"),
    ({"prompt": "x", "metadata": {"k": "\0"}}, 422, "metadata"),
    ({"prompt": "x\0y"}, 422, "prompt"),
    ({"prompt": "x", "env": {"RUNYARD_RUN": "1"}}, 422, "env.RUNYARD_RUN"),
    ({"prompt": "x", "env": {"A=B": "1"}}, 422, "env.A=B"),
    ({"prompt": "x", "sessionId": "a b"}, 422, "sessionId"),
    ({"prompt": "x", "resumeRunId": "run_none"}, 422, "resumeRunId"),
    ({"prompt": "x", "resumeSessionId": "none"}, 422, "resumeSessionId"),
    ({"prompt": "x", "providerOptions": {"timeoutMs": -1}}, 422, "providerOptions.timeoutMs"),
    ({"prompt": "x", "priority": 1000}, 422, "priority"),
    ({"prompt": "x", "provider": "iflow-cli"}, 503, "iflow-cli"),
    ({"prompt": "x", "executionProfile": "nobody"}, 422, "executionProfile"),
    ({"prompt": "x", "env": {"OPENAI_API_KEY": "x"}}, 422, "env.OPENAI_API_KEY"),
]


@pytest.mark.parametrize(("request_body", "status", "field"), BAD_STARTS, ids=lambda value: str(value)[:40])
async def test_a_bad_start_is_refused_by_name_and_stores_nothing(
    stack: Stack, request_body: dict[str, Any], status: int, field: str
) -> None:
    newest = (await stack.client.get("/api/runs", params={"limit": 1})).json()["items"]
    answer = await stack.client.post("/api/runs/start", json={"provider": "scripted", **request_body})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["detail"]
    assert (await stack.client.get("/api/runs", params={"limit": 1})).json()["items"] == newest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"prompt": "x",}'])
async def test_a_body_that_is_no_json_object_is_refused(stack: Stack, content: bytes) -> None:
    answer = await stack.client.post("/api/runs/start", content=content)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "1e3", "999999", "١", "9" * 30])
async def test_a_cursor_that_names_no_place_is_400(stack: Stack, cursor: str) -> None:
    run_id = await stack.start("x")
    await stack.until(run_id)
    by_query = await stack.client.get(f"/api/runs/{run_id}/stream", params={"cursor": cursor})
    assert (by_query.status_code, by_query.json()["code"]) == (400, "invalid_request")
    if cursor.isascii():
        by_header = await stack.client.get(f"/api/runs/{run_id}/stream", headers={"last-event-id": cursor})
        assert by_header.status_code == 400


@pytest.mark.parametrize("cursor", ["x", "!!!", "W10", "eyJhIjoxfQ"])
async def test_a_list_takes_only_its_own_cursors(stack: Stack, cursor: str) -> None:
    for path in ("/api/runs", "/api/human-loop/pending"):
        assert (await stack.client.get(path, params={"cursor": cursor})).status_code == 400


@pytest.mark.parametrize(("path", "status"), [
    ("/api/runs?limit=0", 422), ("/api/runs?limit=x", 422), ("/api/runs?status=odd", 422), ("/api/runs?bogus=1", 422),
    ("/api/runs?from=yesterday", 422), ("/api/runs/run_none", 404), ("/api/runs/run_none/stream", 404),
    ("/api/runs/run_none/events", 404), ("/api/runs/run_none/logs/stdout", 404), ("/nowhere", 404),
])  # fmt: skip
async def test_a_bad_read_is_refused(stack: Stack, path: str, status: int) -> None:
    answer = await stack.client.get(path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


async def test_a_path_names_the_methods_it_takes(stack: Stack) -> None:
    answer = await stack.client.delete("/api/runs/start")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


async def test_without_a_key_nothing_is_told(stack: Stack) -> None:
    run_id = await stack.start("x")
    for key in (None, "wrong", "ry.key_none.secret", "ry..", "ry.key_."):
        async with stack.client_with(key) as stranger:
            for method, path in (("GET", "/api/runs"), ("GET", f"/api/runs/{run_id}"), ("POST", "/api/runs/start")):
                answer = await stranger.request(method, path, json={"prompt": "x"} if method == "POST" else None)
                assert answer.status_code == 401, (key, path)
                assert answer.headers["www-authenticate"] == "Bearer"
    await stack.until(run_id)


async def made_key(stack: Stack, app_id: str) -> httpx.AsyncClient:
    answer = await stack.client.post("/api/keys", json={"appId": app_id, "name": "test"})
    assert answer.status_code == 201
    return stack.client_with(answer.json()["key"])


async def test_a_run_of_another_app_is_not_there(stack: Stack) -> None:
    async with await made_key(stack, "alpha") as alpha, await made_key(stack, "beta") as beta:
        request = {"provider": "scripted", "prompt": script({"ask": {"prompt": "?"}})}
        run_id = (await alpha.post("/api/runs/start", json=request)).json()["runId"]
        question = await stack.question(run_id)
        reply = {"questionId": question["questionId"], "answer": "x"}
        attempts = [
            beta.get(f"/api/runs/{run_id}"), beta.get(f"/api/runs/{run_id}/stream"), beta.get(f"/api/runs/{run_id}/events"),
            beta.get(f"/api/runs/{run_id}/logs/stdout"), beta.post(f"/api/runs/{run_id}/stop"),
            beta.post(f"/api/runs/{run_id}/retry"), beta.post(f"/api/runs/{run_id}/human-loop/reply", json=reply),
            beta.post("/api/human-loop/reply", json={"runId": run_id, **reply}),
        ]  # fmt: skip
        assert [answer.status_code for answer in await asyncio.gather(*attempts)] == [404] * len(attempts)
        assert run_id not in (await beta.get("/api/runs", params={"limit": 500})).text
        assert (await beta.get("/api/runs", params={"appId": "alpha"})).json()["items"] == []
        assert (await beta.get("/api/human-loop/pending")).json()["items"] == []
        assert (await beta.post("/api/keys", json={"name": "mine"})).status_code == 403
        other = await beta.post("/api/runs/start", json={"prompt": "x", "resumeRunId": run_id})
        assert other.status_code == 422
        admin_only = await beta.post("/api/runs/start", json={"prompt": "x", "providerOptions": {"baseUrl": "http://x"}})
        assert admin_only.status_code == 403
        assert (await alpha.post(f"/api/runs/{run_id}/human-loop/reply", json=reply)).status_code == 200
        assert (await stack.until(run_id))["status"] == "success"
        assert soon(lambda: processes_with("RUNYARD_RUN", f"{run_id}.") == [])


async def test_the_same_idempotency_key_of_another_app_is_another_key(stack: Stack) -> None:
    async with await made_key(stack, "alpha") as alpha, await made_key(stack, "beta") as beta:
        headers = {"idempotency-key": "shared"}
        request = {"provider": "scripted", "prompt": "x"}
        answers = [await each.post("/api/runs/start", json=request, headers=headers) for each in (alpha, beta)]
        run_ids = {answer.json()["runId"] for answer in answers}
        assert len(run_ids) == 2
        for run_id in run_ids:
            await stack.until(run_id)
