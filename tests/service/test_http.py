"""Control calls between services: the answer, a definite no, or nobody knows."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shared.contracts.wire import Request, Wire
from shared.errors import ErrorCode, FieldError, RunyardError
from shared.http import NeverSentError, ServiceClient, UnknownOutcomeError
from shared.web import EXCEPTION_HANDLERS
from tests.loopback import scripted_server, serving, unused_port


class Ask(Request):
    run_id: str
    note: str | None = None
    options: dict[str, object] = Field(default_factory=dict)


class Told(Wire):
    run_id: str
    token: str | None = None
    attempt: str | None = None


async def echo(request: HttpRequest) -> Response:
    body = await request.json()
    assert "note" not in body
    return JSONResponse(
        {
            "runId": body["runId"],
            "token": request.headers.get("authorization"),
            "attempt": request.query_params.get("attempt"),
            "newer": True,
        }
    )


async def refuse(_request: HttpRequest) -> Response:
    raise RunyardError(ErrorCode.QUEUE_FULL, "no slot", (FieldError("a.b", "why"),), retry_after=3, extra={"sent": False})


async def bare(request: HttpRequest) -> Response:
    return PlainTextResponse("a proxy says no", int(request.path_params["status"]))


async def nothing(_request: HttpRequest) -> Response:
    return Response(status_code=204)


async def huge(_request: HttpRequest) -> Response:
    return Response(b"x" * 200_000)


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/refuse", refuse, methods=["POST"]),
        Route("/bare/{status}", bare),
        Route("/nothing", nothing, methods=["DELETE"]),
        Route("/huge", huge),
    ],
    exception_handlers=dict(EXCEPTION_HANDLERS),
)


async def test_a_call_sends_its_token_and_reads_an_answer_a_newer_peer_may_have_extended() -> None:
    async with serving(APP) as url:
        client = ServiceClient(url, "secret")
        told = await client.call(
            "POST",
            "/echo",
            body=Ask(run_id="r", options={"a": None}),
            params={"attempt": 2, "executor": None},
            answer=Told,
            timeout=5,
        )
        await client.tell("DELETE", "/nothing", timeout=5)
        await client.close()
    assert told == Told(run_id="r", token="Bearer secret", attempt="2")


async def test_a_problem_comes_back_as_the_error_it_was() -> None:
    async with serving(APP) as url:
        client = ServiceClient(url, None)
        with pytest.raises(RunyardError) as caught:
            await client.call("POST", "/refuse", answer=Told, timeout=5)
        await client.close()
    expected = RunyardError(ErrorCode.QUEUE_FULL, "no slot", (FieldError("a.b", "why"),), 3, {"sent": False})
    assert caught.value == expected


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (409, "conflict"), (429, "rate_limited"), (400, "invalid_request")]
)
async def test_a_no_without_a_problem_is_still_a_no(status: int, code: str) -> None:
    async with serving(APP) as url:
        client = ServiceClient(url, None)
        with pytest.raises(RunyardError) as caught:
            await client.call("GET", f"/bare/{status}", answer=Told, timeout=5)
        await client.close()
    assert caught.value.code == code


async def test_a_server_error_without_a_problem_is_an_unknown_outcome() -> None:
    async with serving(APP) as url:
        client = ServiceClient(url, None)
        with pytest.raises(UnknownOutcomeError, match="502"):
            await client.call("GET", "/bare/502", answer=Told, timeout=5)
        with pytest.raises(UnknownOutcomeError, match="no Told"):
            await client.call("GET", "/bare/200", answer=Told, timeout=5)
        await client.close()


async def test_a_refused_connection_was_never_sent() -> None:
    client = ServiceClient(f"http://127.0.0.1:{unused_port()}", None)
    with pytest.raises(NeverSentError):
        await client.call("POST", "/echo", body=Ask(run_id="r"), answer=Told, timeout=5)
    await client.close()


async def test_a_call_that_was_sent_and_not_answered_is_an_unknown_outcome() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    for script, timeout in ((mute, 0.1), (cut, 5.0)):
        async with scripted_server(script) as url:
            client = ServiceClient(url, None)
            with pytest.raises(UnknownOutcomeError):
                await client.call("POST", "/echo", body=Ask(run_id="r"), answer=Told, timeout=timeout)
            await client.close()


async def test_the_timeout_is_for_the_whole_call_however_slowly_bytes_drip() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)  # the peer's slowness is what is tested

    async with scripted_server(drip) as url:
        client = ServiceClient(url, None)
        with pytest.raises(UnknownOutcomeError):
            await client.call("GET", "/drip", answer=Told, timeout=0.2)
        await client.close()


async def test_an_answer_has_a_limit() -> None:
    async with serving(APP) as url:
        client = ServiceClient(url, None, max_answer_bytes=100_000)
        with pytest.raises(UnknownOutcomeError, match="longer than 100000"):
            await client.forward("GET", "/huge", timeout=5)
        await client.close()


async def test_a_forwarded_answer_comes_as_it_is_whatever_its_status() -> None:
    async with serving(APP) as url:
        client = ServiceClient("", None)
        raw = await client.forward("GET", f"{url}/bare/409", timeout=5)
        await client.close()
    assert (raw.status, raw.content) == (409, b"a proxy says no")
