"""Control calls through the manager: which executor, what it got, what came back, and what «no answer» means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.contracts.provider_runs import Proposal, Propose, WorkspaceRef
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from shared.http import ServiceClient
from tests.fake_executor import FakeExecutor
from tests.loopback import scripted_server, serving, until, unused_port
from tests.service.executor_manager.conftest import TOKEN, Stack, manager

RUNS = "/api/provider-runs"
START: dict[str, Any] = {
    "runId": "r",
    "provider": "claude-code",
    "model": "opus",
    "messages": [{"content": "hi"}],
    "workspace": {"key": "w"},
}
PROPOSE = {"provider": "scripted", "workspace": {"key": "w"}}


@pytest.mark.parametrize(
    ("method", "path", "reached"),
    [
        ("POST", "/r/stop", "/provider-runs/r/stop"),
        ("POST", "/renew", "/provider-runs/renew"),
        ("POST", "/r/human-loop/reply", "/provider-runs/r/human-loop/reply"),
        ("POST", "/r/messages", "/provider-runs/r/messages"),
        ("POST", "/r/park", "/provider-runs/r/park"),
        ("DELETE", "/r", "/provider-runs/r"),
        ("GET", "/r/files", "/provider-runs/r/files"),
    ],
)
async def test_a_call_reaches_the_named_executor_as_it_is(stack: Stack, method: str, path: str, reached: str) -> None:
    body = b'{"any" : ["thing", 1.0]}' if method == "POST" else b""
    answer = await stack.http.request(method, RUNS + path, params={"executor": "two", "attempt": 2, "limit": 7}, content=body)
    assert stack.two.calls[-1] == (method, reached, {"attempt": "2", "limit": "7"}, body)
    assert stack.two.headers[-1]["authorization"] == f"Bearer {TOKEN}"
    assert not [call for call in stack.one.calls if call[1] == reached]
    if path != "/renew":
        assert (answer.status_code, answer.content) == (200 if method == "GET" else 202, b'{"ok" :  true}')
        assert answer.headers["content-type"] == "application/json"


async def test_a_start_gets_its_timeout_and_its_answer_is_the_executors(stack: Stack) -> None:
    answer = await stack.http.post(f"{RUNS}/start", params={"executor": "one"}, json=START)
    assert (answer.status_code, answer.content) == (201, b'{ "runId":"r" }')
    assert b'"runMs":420000' in stack.one.calls[-1][3]
    assert b'"rule":"template: claude-code includes opus"' in stack.one.calls[-1][3]


async def test_a_refusal_of_the_executor_passes_unchanged(stack: Stack) -> None:
    stack.one.live = stack.one.slots
    answer = await stack.http.post(f"{RUNS}/start", params={"executor": "one"}, json=START)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "4")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["detail"], answer.json()["mine"]) == ("queue_full", "no slot", [1, "ü"])
    assert "sent" not in answer.json()


@pytest.mark.parametrize("path", ["/start", "/renew"])
async def test_some_calls_must_name_their_executor(stack: Stack, path: str) -> None:
    answer = await stack.http.post(RUNS + path, json=START)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.executor")


async def test_a_bad_start_is_refused_before_it_travels(stack: Stack) -> None:
    for body in ({**START, "color": "red"}, {**START, "providerOptions": {"timeoutMs": "soon"}}):
        answer = await stack.http.post(f"{RUNS}/start", params={"executor": "one"}, json=body)
        assert answer.status_code == 422
    assert stack.one.calls == []


async def test_without_the_token_nothing_is_answered(stack: Stack) -> None:
    for path in ("/api/executors", f"{RUNS}/r", f"{RUNS}/r/stream"):
        answer = await stack.http.get(path, headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401


async def test_a_body_has_a_limit(stack: Stack) -> None:
    answer = await stack.http.post(f"{RUNS}/r/messages", params={"executor": "one"}, content=b"x" * (8 * 1024 * 1024 + 1))
    assert answer.status_code == 413


async def test_a_call_that_names_nobody_goes_to_the_holder_of_the_highest_attempt(stack: Stack) -> None:
    stack.one.holds["r"], stack.two.holds["r"] = 1, 2
    await stack.http.post(f"{RUNS}/r/stop")
    assert [call[1] for call in stack.two.calls] == ["/provider-runs/r/stop"]
    assert stack.one.calls == []


@pytest.mark.parametrize("status", [401, 500])
async def test_not_found_only_when_every_executor_answered(stack: Stack, status: int) -> None:
    answer = await stack.http.get(f"{RUNS}/r")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    stack.two.broken, stack.two.broken_status = True, status
    answer = await stack.http.get(f"{RUNS}/r")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    stack.one.holds["r"] = 1
    answer = await stack.http.get(f"{RUNS}/r")
    assert (answer.status_code, answer.json()["executorId"]) == (200, "one")


async def test_an_unknown_executor_is_looked_for_once(stack: Stack) -> None:
    stack.two.executor_id = "renamed"
    answer = await stack.http.get(f"{RUNS}/r", params={"executor": "renamed"})
    assert answer.json()["detail"] == "not here", "the call reached it"
    answer = await stack.http.get(f"{RUNS}/r", params={"executor": "nobody"})
    assert (answer.status_code, answer.json()["sent"]) == (404, False)
    stack.two.broken = True
    answer = await stack.http.get(f"{RUNS}/r", params={"executor": "nobody"})
    assert (answer.status_code, answer.json()["sent"]) == (503, False)


async def test_a_draining_executor_is_still_reached_and_no_longer_proposed(stack: Stack) -> None:
    stack.one.draining = stack.two.draining = True
    await until(lambda: stack.one.polls > 1 and stack.two.polls > 1)
    answer = await stack.http.post(f"{RUNS}/r/stop", params={"executor": "one"})
    assert answer.status_code == 202
    answer = await stack.http.post(f"{RUNS}/propose", json=PROPOSE)
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")


async def test_a_call_that_was_never_sent_says_so_and_one_that_may_have_been_does_not() -> None:
    one = FakeExecutor("one")
    port = unused_port()
    async with manager(f"http://127.0.0.1:{port}") as (_, http):
        async with serving(one.app(), port):
            await until(lambda: one.polls > 0)
            assert (await http.get(f"{RUNS}/r", params={"executor": "one"})).status_code == 404
        answer = await http.post(f"{RUNS}/r/stop", params={"executor": "one"})
        assert (answer.status_code, answer.json()["sent"]) == (503, False)
        stream = await http.get(f"{RUNS}/r/stream", params={"executor": "one"})
        assert (stream.status_code, stream.json()["sent"]) == (503, False)


async def test_a_call_whose_connection_broke_has_an_unknown_outcome() -> None:
    state = FakeExecutor("one").state().wire_json().encode()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tells who it is, once, and breaks off every other call after it was read."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        if not told:
            told.append(1)
            writer.write(head % len(state) + state)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    told: list[int] = []
    async with scripted_server(script) as url, manager(url) as (_, http):
        await until(lambda: bool(told))
        answer = await http.post(f"{RUNS}/r/stop", params={"executor": "one"})
        assert (answer.status_code, answer.json()["code"], answer.json()["sent"]) == (503, "provider_unavailable", None)


async def test_the_control_plane_can_tell_the_two_apart_through_its_own_client() -> None:
    async with manager(f"http://127.0.0.1:{unused_port()}") as (url, _):
        client = ServiceClient(url, TOKEN)
        body = Propose(provider=Provider.SCRIPTED, workspace=WorkspaceRef(key="w"))
        with pytest.raises(RunyardError) as caught:
            await client.call("POST", f"{RUNS}/propose", body=body, answer=Proposal, timeout=10)
        await client.close()
    assert (caught.value.code, caught.value.extra["sent"]) == (ErrorCode.PROVIDER_UNAVAILABLE, False)


def of_workspace(number: int) -> dict[str, Any]:
    return {**PROPOSE, "workspace": {"key": f"w{number}"}}


async def test_a_proposal_names_who_where_and_its_clock_and_spreads_the_load(stack: Stack) -> None:
    proposed = [(await stack.http.post(f"{RUNS}/propose", json=of_workspace(number))).json() for number in range(8)]
    assert sorted(each["executorId"] for each in proposed) == ["one"] * 4 + ["two"] * 4
    assert proposed[0]["instance"] == f"{proposed[0]['executorId']}-i1"
    assert proposed[0]["url"].startswith("http://127.0.0.1:")
    assert proposed[0]["clockMs"] >= 1000


async def test_guesses_never_fill_a_fleet_that_is_free(stack: Stack) -> None:
    answers = [await stack.http.post(f"{RUNS}/propose", json=of_workspace(number)) for number in range(12)]
    assert {answer.status_code for answer in answers} == {200}


async def test_when_all_are_full_the_caller_is_told_to_wait(stack: Stack) -> None:
    stack.one.live = stack.two.live = 4
    await until(lambda: stack.one.polls > 1 and stack.two.polls > 1)
    answer = await stack.http.post(f"{RUNS}/propose", json=PROPOSE)
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_manager_is_ready_once_it_has_asked_its_executors_whatever_they_said() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted_server(mute) as silent, manager(silent) as (_, http):
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["the executors were not asked yet"])
        async with asyncio.timeout(20):
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)


async def test_the_fleet_its_providers_and_the_timeouts_can_be_read(stack: Stack) -> None:
    fleet = (await stack.http.get("/api/executors")).json()
    assert [(each["state"]["executorId"], each["reachable"]) for each in fleet["items"]] == [("one", True), ("two", True)]
    providers = (await stack.http.get("/api/providers")).json()
    assert [each["provider"] for each in providers["items"]] == ["scripted"]
    timeout = (await stack.http.get("/api/timeouts", params={"provider": "claude", "model": "opus"})).json()
    assert (timeout["provider"], timeout["runMs"]) == ("claude-code", 420_000)
    unknown = await stack.http.get("/api/timeouts", params={"provider": "nobody"})
    assert unknown.status_code == 422
