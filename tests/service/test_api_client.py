"""The client against a server that cuts, closes, refuses and chatters."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from runyard import api as client_module
from runyard.api import Event, Runyard, RunyardApiError, RunyardUnreachableError
from tests.service.fake_api import KEY, FakeApi, ending, event, serving

EVENTS = [
    event(1, "run.status", status="queued"),
    *(event(n, "message.delta", text=str(n)) for n in range(2, 8)),
    ending(8, "success"),
]


async def followed(api: FakeApi, after: int = 0) -> list[Event]:
    async with serving(api), Runyard(api.url, KEY) as client:
        return [each async for each in client.stream("run_1", after)]


@pytest.mark.parametrize("closes", [False, True], ids=["cut", "closed"])
@pytest.mark.parametrize("heartbeats", [0, 3])
@pytest.mark.parametrize("cut_after", [1, 3, 7, None])
async def test_every_event_comes_once_and_in_order_however_often_the_stream_breaks(
    cut_after: int | None, heartbeats: int, closes: bool
) -> None:
    api = FakeApi(EVENTS[:], cut_after=cut_after, closes=closes, heartbeats=heartbeats)
    assert [each.cursor for each in await followed(api)] == list(range(1, 9))


async def test_a_reader_resumes_behind_the_cursor_it_has() -> None:
    api = FakeApi(EVENTS[:], cut_after=3)
    assert [each.cursor for each in await followed(api, after=4)] == [5, 6, 7, 8]
    assert [headers["last-event-id"] for _, _, headers, _ in api.asked("/api/runs/run_1/stream")] == ["4", "7"]


async def test_a_reader_that_is_sent_away_comes_back_without_asking_how_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And after the time it was told, not after its own back-off."""
    monkeypatch.setattr(client_module, "FIRST_DELAY_SECONDS", 60.0)
    api = FakeApi(EVENTS[:], cut_after=1, closes=True, sends_away=True)
    async with asyncio.timeout(30):
        assert [each.cursor for each in await followed(api)] == list(range(1, 9))
    assert len(api.asked("/api/runs/run_1/stream")) == 8
    assert api.asked("/api/runs/run_1") == []


async def test_what_a_server_says_twice_is_heard_once() -> None:
    assert [each.cursor for each in await followed(FakeApi(EVENTS[:], cut_after=3, overlap=2))] == list(range(1, 9))


async def test_a_connection_that_went_silent_is_left_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.2)
    api = FakeApi(EVENTS[:], mute_after=3)
    assert [each.cursor for each in await followed(api)] == list(range(1, 9))
    assert len(api.asked("/api/runs/run_1/stream")) == 2


async def test_a_reader_who_has_it_all_already_is_not_kept_waiting() -> None:
    assert await followed(FakeApi(EVENTS[:]), after=8) == []


async def test_heartbeats_are_no_events() -> None:
    events = await followed(FakeApi(EVENTS[:], heartbeats=2))
    assert [(each.cursor, each.kind) for each in events] == [(each["cursor"], each["kind"]) for each in EVENTS]


async def test_an_event_keeps_the_text_it_came_as() -> None:
    last = (await followed(FakeApi(EVENTS[:])))[-1]
    assert last.is_terminal
    assert (last.run_id, last.attempt, last.data) == ("run_1", 1, {"status": "success"})
    assert '"cursor": 8' in last.text


async def test_trimmed_history_is_passed_on_with_the_cursor_it_reaches_to() -> None:
    api = FakeApi([{**event(5, "stream.gap"), "data": {"from": 1, "to": 5}}, ending(6, "success")])
    assert [(each.cursor, each.kind) for each in await followed(api)] == [(5, "stream.gap"), (6, "run.status")]


async def test_a_refused_stream_is_an_error_with_the_problem() -> None:
    problem = {"code": "not_found", "detail": "no run run_1", "retryable": False, "hint": "check the id"}
    with pytest.raises(RunyardApiError, match="no run run_1") as caught:
        await followed(FakeApi(refuse={"/api/runs/run_1/stream": (404, problem)}))
    assert (caught.value.status, caught.value.code, caught.value.hint) == (404, "not_found", "check the id")


async def test_a_server_that_fails_for_a_while_is_asked_again() -> None:
    api = FakeApi(EVENTS[:], refuse={"/api/runs/run_1/stream": (503, {"code": "storage_unavailable"})}, refusals=2)
    assert [each.cursor for each in await followed(api)] == list(range(1, 9))
    assert len(api.asked("/api/runs/run_1/stream")) == 3


async def test_nobody_there_is_said_so() -> None:
    async with Runyard("http://127.0.0.1:9", KEY) as runyard:
        with pytest.raises(RunyardUnreachableError, match=r"127\.0\.0\.1:9"):
            await runyard.get("run_1")
        with pytest.raises(RunyardUnreachableError):
            await anext(runyard.stream("run_1", patience=0.0))


async def test_calls_carry_the_key_and_posts_an_idempotency_key() -> None:
    async with serving(FakeApi(EVENTS[:])) as api, Runyard(api.url, KEY) as runyard:
        accepted = await runyard.start("hi", provider="scripted", engineMode="ask", model=None)
        await runyard.reply("run_1", "q1", decision="accept")
        assert (await runyard.list(status="success", provider=None))["items"][0]["runId"] == "run_1"
    assert accepted["runId"] == "run_1"
    (_, _, headers, body), (_, _, other, reply) = api.requests[:2]
    assert body == {"prompt": "hi", "provider": "scripted", "engineMode": "ask"}
    assert reply == {"questionId": "q1", "decision": "accept"}
    assert headers["idempotency-key"] != other["idempotency-key"]
    assert api.requests[2][1] == "/api/runs?status=success"


async def test_a_wrong_key_is_refused_and_never_shown() -> None:
    async with serving(FakeApi(EVENTS[:])) as api, Runyard(api.url, "ry_wrong") as runyard:
        with pytest.raises(RunyardApiError) as caught:
            await runyard.get("run_1")
    assert caught.value.code == "unauthorized"
    assert "ry_wrong" not in f"{caught.value!r} {caught.value} {caught.value.problem}"


async def test_the_questions_behind_the_first_page_are_asked_for_by_its_cursor() -> None:
    async with serving(FakeApi()) as api, Runyard(api.url, KEY) as runyard:
        await runyard.pending()
        await runyard.pending(cursor="c2", limit=500)
    assert [path for _, path, _, _ in api.requests] == ["/api/human-loop/pending", "/api/human-loop/pending?cursor=c2&limit=500"]


async def test_a_program_that_follows_a_hundred_runs_can_still_stop_one() -> None:
    api = FakeApi([event(1, "run.status", status="queued"), ending(2, "success")], held_until_reply=2)
    async with serving(api), Runyard(api.url, KEY) as client, AsyncExitStack() as streams, asyncio.timeout(60):
        for _ in range(101):
            stream = await streams.enter_async_context(aclosing(client.stream("run_1")))
            assert (await anext(stream)).cursor == 1
        assert (await client.stop("run_1"))["status"] == "stopping"


@pytest.mark.parametrize("key", ["ry_admin_secret\r", "ry_admin_secret\n", "ry_admin_secret\0", "ry_admin_secret\u2026"])
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(RunyardApiError, match="printable") as caught:
        Runyard("http://127.0.0.1:9", key)
    assert caught.value.code == "unauthorized"
    assert "secret" not in "".join(traceback.format_exception(caught.value))


Call = Callable[[Runyard], Any]


@pytest.mark.parametrize(
    "call",
    [
        lambda runyard: runyard.get("."),
        lambda runyard: runyard.stop(".."),
        lambda runyard: runyard.reply("..", "q1", answer="x"),
        lambda runyard: runyard.logs("run_1", ".."),
        lambda runyard: anext(runyard.stream("..")),
        lambda runyard: anext(runyard.download("..")),
        lambda runyard: anext(runyard.download("run_1", "../../../../api/apps")),
        lambda runyard: anext(runyard.download("run_1", "notes/./../..")),
    ],
)
async def test_what_would_lead_out_of_the_run_is_refused_before_anything_is_asked(call: Call) -> None:
    async with serving(FakeApi(EVENTS[:])) as api, Runyard(api.url, KEY) as runyard:
        with pytest.raises(RunyardApiError) as caught:
            await call(runyard)
    assert (caught.value.code, api.requests) == ("invalid_request", [])


async def test_names_that_only_look_like_steps_are_asked_for_as_they_are() -> None:
    async with serving(FakeApi(EVENTS[:])) as api, Runyard(api.url, KEY) as runyard:
        assert [block async for block in runyard.download("run_1", "..notes/.env/a...b")]
    assert [path for _, path, _, _ in api.requests] == ["/api/runs/run_1/files/..notes/.env/a...b"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "surprise://127.0.0.1:9"])
async def test_a_proxy_that_cannot_be_used_is_told_with_what_is_missing(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    with pytest.raises(RunyardUnreachableError, match="proxy"):
        Runyard("http://runyard.example", KEY)
