"""The main job through all three services: start, follow, answer, stop, keep."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.e2e.kit import Stack, no_process_of, processes_with, script


async def test_a_run_streams_text_and_a_tool_call_and_ends_in_success(stack: Stack) -> None:
    run_id = await stack.start(script(
        {"think": "hm"}, {"deltas": ["a", "b"], "everyMs": 1},
        {"tool": {"name": "shell", "input": {"command": "ls"}, "output": "x", "status": "completed"}},
        {"usage": {"inputTokens": 3, "outputTokens": 4}}, {"say": "done"},
    ))  # fmt: skip
    kinds = [frame.event.decode() for frame in await stack.followed(run_id)]
    assert kinds[0] == "run.status"
    assert kinds[-2:] == ["attempt.ended", "run.status"]
    assert {"message.delta", "message.completed", "tool.started", "tool.completed", "usage.updated"} <= set(kinds)
    shown = await stack.show(run_id)
    assert (shown["status"], shown["result"], shown["usage"]["outputTokens"]) == ("success", "done", 4)
    await stack.check(run_id)


async def test_a_start_may_answer_with_the_stream_itself(stack: Stack) -> None:
    request = {"provider": "scripted", "prompt": "hello"}
    answer = await stack.client.post("/api/runs/start", json=request, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "hello" in answer.text
    assert answer.text.count('"status":"success"') == 1


async def test_a_start_may_wait_for_the_end(stack: Stack) -> None:
    request = {"provider": "scripted", "prompt": "hello"}
    answer = await stack.client.post("/api/runs/start", params={"wait": 30}, json=request)
    assert (answer.status_code, answer.json()["snapshot"]["status"]) == (200, "success")
    assert [event["cursor"] for event in answer.json()["events"]] == list(range(1, len(answer.json()["events"]) + 1))


async def test_a_wait_that_ends_first_answers_with_what_there_is(stack: Stack) -> None:
    request = {"provider": "scripted", "prompt": script({"sleep": 30})}
    answer = await stack.client.post("/api/runs/start", params={"wait": 0.2}, json=request)
    assert answer.json()["status"] in ("queued", "running")
    await stack.stop(answer.json()["runId"])


async def test_a_question_is_asked_answered_once_and_the_run_goes_on(stack: Stack) -> None:
    run_id = await stack.start(script({"ask": {"prompt": "Which?", "options": ["red", "blue"]}}))
    question = await stack.question(run_id)
    assert (question["prompt"], question["status"]) == ("Which?", "pending")
    inbox = (await stack.client.get("/api/human-loop/pending", params={"limit": 500})).json()["items"]
    assert run_id in {each["runId"] for each in inbox}
    answers = await asyncio.gather(*(stack.reply(run_id, question["questionId"], answer=f"answer {n}") for n in range(20)))
    assert sorted(each.status_code for each in answers) == [200] + [409] * 19
    winner = next(each for each in answers if each.status_code == 200)
    loser = next(each for each in answers if each.status_code == 409)
    assert winner.json()["duplicate"] is False
    shown = await stack.until(run_id)
    recorded = loser.json()["answer"]["answer"]
    assert shown["result"] == f"reply: {recorded}"
    again = await stack.reply(run_id, question["questionId"], answer=recorded)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    kinds = [event["kind"] for event in await stack.check(run_id)]
    assert kinds.count("interaction.resolved") == 1


@pytest.mark.parametrize("decision", ["accept", "acceptForSession", "decline", "declineAndStop"])
async def test_a_permission_takes_all_four_decisions(stack: Stack, decision: str) -> None:
    run_id = await stack.start(script({"permission": {"tool": "shell", "input": {"command": "rm"}}}, {"say": "after"}))
    question = await stack.question(run_id)
    assert question["type"] == "permission"
    assert (await stack.reply(run_id, question["questionId"], answer="yes")).status_code == 422
    assert (await stack.reply(run_id, question["questionId"], decision=decision)).status_code == 200
    shown = await stack.until(run_id)
    assert shown["status"] == ("canceled" if decision == "declineAndStop" else "success")
    await stack.check(run_id)


async def test_a_question_nobody_answers_expires_and_ends_the_run(stack: Stack) -> None:
    run_id = await stack.start(script({"ask": {"prompt": "?"}}), providerOptions={"interactionTimeoutMs": 300})
    question = await stack.question(run_id)
    shown = await stack.until(run_id, within=20)
    assert (shown["status"], shown["errorCode"]) == ("error", "interaction_expired")
    assert (await stack.reply(run_id, question["questionId"], answer="late")).status_code == 409
    await stack.check(run_id)


async def test_a_permission_nobody_gives_is_declined_where_that_is_declared(stack: Stack) -> None:
    options = {"interactionTimeoutMs": 300, "onExpiry": "deny"}
    run_id = await stack.start(script({"permission": {"tool": "shell", "input": {}}}), providerOptions=options)
    shown = await stack.until(run_id, within=20)
    assert (shown["status"], shown["result"]) == ("success", "reply: decline")
    resolved = next(event for event in await stack.check(run_id) if event["kind"] == "interaction.resolved")
    assert resolved["data"]["answeredBy"] == "expiry"


async def test_a_question_nobody_answers_is_answered_where_that_is_declared(stack: Stack) -> None:
    options = {"interactionTimeoutMs": 300, "onExpiry": "answer", "expiryAnswer": "as you like"}
    run_id = await stack.start(script({"ask": {"prompt": "Which?", "options": ["red", "blue"]}}), providerOptions=options)
    shown = await stack.until(run_id, within=20)
    assert (shown["status"], shown["result"]) == ("success", "reply: as you like")
    told = {event["kind"]: event["data"] for event in await stack.check(run_id)}
    assert told["interaction.requested"]["expiryAnswer"] == "as you like"
    resolved = told["interaction.resolved"]
    assert (resolved["how"], resolved["answeredBy"], resolved["answer"]) == ("answered", "expiry", {"answer": "as you like"})


@pytest.mark.parametrize(("step", "code", "exit_code"), [
    ({"fail": {"code": "auth_failed", "message": "401"}}, "auth_failed", 1),
    ({"exit": 3}, "engine_exit_nonzero", 3),
    ({"crash": True}, "engine_exit_nonzero", -6),
    ({"exit": 0}, "engine_no_output", 0),
])  # fmt: skip
async def test_an_engine_that_fails_says_why(stack: Stack, step: dict[str, object], code: str, exit_code: int) -> None:
    run_id = await stack.start(script({"stderr": "its last words\n"}, step))
    shown = await stack.until(run_id)
    assert (shown["status"], shown["errorCode"], shown["exitCode"]) == ("error", code, exit_code)
    assert shown["hint"]
    ended = next(event["data"] for event in await stack.check(run_id) if event["kind"] == "attempt.ended")
    assert "its last words" in ended["stderrTail"]


async def test_a_run_that_takes_too_long_times_out(stack: Stack) -> None:
    run_id = await stack.start(script({"say": "x"}, {"hang": True}), providerOptions={"timeoutMs": 700})
    shown = await stack.until(run_id, within=20)
    assert (shown["status"], shown["errorCode"]) == ("timeout", "timeout")
    await stack.check(run_id)


async def test_a_silent_engine_times_out_as_idle(stack: Stack) -> None:
    run_id = await stack.start(script({"say": "x"}, {"hang": True}), providerOptions={"idleTimeoutMs": 500})
    shown = await stack.until(run_id, within=20)
    assert (shown["status"], shown["errorCode"]) == ("timeout", "idle_timeout")


async def test_a_second_run_of_a_session_goes_on_where_the_first_ended(stack: Stack) -> None:
    session = "ses-e2e"
    first = await stack.start(script({"write": {"path": "note.txt", "text": "kept"}}, {"say": "1"}), sessionId=session)
    await stack.until(first)
    second = await stack.start(script({"read": "note.txt"}), sessionId=session)
    shown = await stack.until(second)
    texts = [event["data"]["text"] for event in await stack.events(second) if event["kind"] == "message.completed"]
    assert texts[0] == "turns: 2"
    assert "kept" in " ".join(texts)
    assert shown["resumeSessionId"] == (await stack.show(first))["resumeSessionId"]
    third = await stack.start("again", resumeRunId=first)
    assert (await stack.until(third))["status"] == "success"


async def test_the_engine_sees_none_of_our_secrets(stack: Stack) -> None:
    facts = stack.facts
    run_id = await stack.start(script({"spawn": ["sleep", "30"]}, {"ask": {"prompt": "?"}}))
    question = await stack.question(run_id)
    pids = processes_with("RUNYARD_RUN", f"{run_id}.")
    assert pids
    with open(f"/proc/{pids[0]}/environ", "rb") as file:  # noqa: ASYNC230 - procfs does not block
        environ = file.read()
    for secret in (facts["serviceToken"], facts["apiKey"], facts["databaseUrl"]):
        assert secret.encode() not in environ
    assert b"RUNYARD_SERVICE_TOKEN" not in environ
    await stack.reply(run_id, question["questionId"], answer="ok")
    await stack.until(run_id)
    assert no_process_of(run_id)


async def test_raw_output_is_kept_by_byte(stack: Stack) -> None:
    run_id = await stack.start(script({"stdout": "strange output"}, {"stderr": "oh"}, {"say": "x"}))
    await stack.until(run_id)
    log = (await stack.client.get(f"/api/runs/{run_id}/logs/stdout")).json()
    at = log["text"].index("strange output")
    part = await stack.client.get(f"/api/runs/{run_id}/logs/stdout", params={"byteFrom": at, "byteTo": at + 7})
    assert part.json()["text"] == "strange"
    message = next(e for e in await stack.events(run_id) if e["kind"] == "message.completed")
    ref = message["rawRef"]
    span = await stack.client.get(
        f"/api/runs/{run_id}/logs/{ref['stream']}", params={"byteFrom": ref["byteFrom"], "byteTo": ref["byteTo"]}
    )
    assert json.loads(span.json()["text"])["text"] == "x"
    assert "oh" in (await stack.client.get(f"/api/runs/{run_id}/logs/stderr")).json()["text"]


async def test_a_giant_line_neither_kills_nor_blocks(stack: Stack) -> None:
    giant = await stack.start(script({"bigLine": 33_554_432}, {"say": "after"}))
    small = await stack.start("hi")
    assert (await stack.until(small))["status"] == "success"
    shown = await stack.until(giant)
    assert (shown["status"], shown["result"]) == ("success", "after")
    assert "diagnostic" in {event["kind"] for event in await stack.check(giant)}


async def test_runs_are_listed_newest_first_in_pages(stack: Stack) -> None:
    made = [await stack.start("x", metadata={"n": n}, sessionId=f"list-{n}") for n in range(5)]
    for run_id in made:
        await stack.until(run_id)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await stack.client.get("/api/runs", params=params)).json()
        seen += [item["runId"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None or set(made) <= set(seen):
            break
    assert [run_id for run_id in seen if run_id in made] == made[::-1]
    assert len(seen) == len(set(seen))
    only = (await stack.client.get("/api/runs", params={"sessionId": "list-3"})).json()["items"]
    assert [item["runId"] for item in only] == [made[3]]


async def test_a_finished_run_can_be_tried_again(stack: Stack) -> None:
    run_id = await stack.start(script({"exit": 3}))
    refused = await stack.client.post(f"/api/runs/{run_id}/retry")
    await stack.until(run_id)
    if refused.status_code != 202:
        assert refused.status_code == 409
    again = await stack.client.post(f"/api/runs/{run_id}/retry")
    assert again.status_code == 202
    shown = await stack.until(again.json()["runId"])
    assert (shown["errorCode"], shown["metadata"]["retryOf"]) == ("engine_exit_nonzero", run_id)


async def test_fifty_starts_with_one_key_make_one_run(stack: Stack) -> None:
    request = {"provider": "scripted", "prompt": "once"}
    headers = {"idempotency-key": "fifty"}
    answers = await asyncio.gather(*(
        stack.client.post("/api/runs/start", json=request, headers=headers) for _ in range(50)
    ))  # fmt: skip
    assert {each.status_code for each in answers} == {202}
    assert len({each.text for each in answers}) == 1
    await stack.until(answers[0].json()["runId"])
    assert (await stack.client.post("/api/runs/start", json=request, headers=headers)).text == answers[0].text
    other = await stack.client.post("/api/runs/start", json={**request, "prompt": "twice"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


async def test_the_page_at_the_root_shows_itself_without_a_key(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.facts["apiUrl"], trust_env=False) as stranger:
        page = await stranger.get("/")
        assert page.status_code == 200
        assert "Runyard" in page.text
        for path in ("/livez", "/readyz", "/health", "/version", "/metrics", "/openapi.json"):
            assert (await stranger.get(path)).status_code == 200


async def test_everything_the_chain_needs_is_ready(stack: Stack) -> None:
    chain = (await stack.client.get("/api/system/readiness")).json()
    assert chain["ready"], chain
    assert len(chain["executors"]) == 2
