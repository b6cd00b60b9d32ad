"""What a conversation asks of the server its engine opened: answered by that server alone, bounded, and gone with the attempt."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.base import Call, Emit, StartRequest, Step, Stream, call_of
from executor.attempts import engine_calls
from shared.contracts.events import Diagnostic
from tests.service.executor.kit import Inside, executor_inside, is_quiet, is_running, until
from tests.service.executor.shell_engine import ShellAdapter, ShellConversation

# Prints a line to stdout for each of its arguments once it listens; a GET of /PATH does as it is called.
SERVER = r"""
import os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
asked_to_end = threading.Event()
if "call GET /late" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        what, told = self.path.strip("/"), b"hello"
        if what == "exit":
            os._exit(3)
        if what == "hang":
            time.sleep(600)
        if what == "late":
            asked_to_end.wait()
        if what == "key":
            told = self.headers["authorization"].encode()
        if what == "much":
            told = b"x" * (5 << 20)
        self.send_response(404 if what == "missing" else 200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
    def do_POST(self):
        told = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["content-type"].encode() + b" " + told[::-1])
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
for line in ("say port %d" % server.server_address[1], *sys.argv[1:]):
    print(line, flush=True)
server.serve_forever()
"""


class CallingAdapter(ShellAdapter):
    def start(self, request: StartRequest) -> CallingConversation:
        return CallingConversation(request)


class CallingConversation(ShellConversation):
    """``call METHOD PATH`` makes one; its answer is a diagnostic: status and body."""

    def __init__(self, request: StartRequest) -> None:
        super().__init__(request)
        self._key = request.door_key
        self._made = 0
        self._answers: dict[Stream, bytes] = {}

    def feed(self, stream: Stream, chunk: bytes) -> list[Step]:
        if call_of(stream) is not None:
            self._answers[stream] = self._answers.get(stream, b"") + chunk
            return []
        steps = super().feed(stream, chunk)
        calls = [line.split() for line in chunk.decode().splitlines() if line.startswith("call ")]
        return [*steps, *(self._call(method, path) for _, method, path in calls)]

    def end_of(self, stream: Stream) -> list[Step]:
        if call_of(stream) is None:
            return super().end_of(stream)
        told, _, body = self._answers.pop(stream).partition(b"\n")
        text = f"{json.loads(told)['status']} {body.decode()}"
        return [Emit(Diagnostic(code="answer", message=text))]

    def _call(self, method: str, path: str) -> Call:
        self._made += 1
        return Call(str(self._made), method, path, b"drawer" if method == "POST" else None, {"authorization": self._key})


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[Inside]:
    async with executor_inside(tmp_path / "state", CallingAdapter()) as inside:
        yield inside


@pytest.fixture
def server(tmp_path: Path) -> str:
    """A shell's words that run the server; lines to print follow."""
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    return f"{sys.executable} -S {file}"


async def answers(executor: Inside, count: int = 1) -> list[str]:
    """The first so many answers to calls, in their order; then the attempt is stopped."""
    found: list[str] = []
    cursor = 0
    while len(found) < count:
        page = await executor.events(cursor=cursor, until="diagnostic")
        found, cursor = [*found, *answers_in(page)], page[-1]["executorCursor"]
        assert page[-1]["kind"] != "attempt.ended", page
    await executor.stop()
    return found


def answers_in(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["message"] for event in events if event["data"].get("code") == "answer"]


@pytest.mark.parametrize(("call", "answer"), [
    ("GET /hello", "200 hello"),
    ("GET /missing", "404 hello"),
    ("POST /any", "200 application/json reward"),
])  # fmt: skip
async def test_the_engines_own_server_answers_and_the_attempt_goes_on(
    executor: Inside, server: str, call: str, answer: str
) -> None:
    await executor.begin(f"{server} 'call {call}'")
    assert await answers(executor) == [answer]
    assert (await executor.ended())["outcome"] == "canceled"


async def test_the_key_of_an_attempt_is_shown_to_nobody(executor: Inside, server: str) -> None:
    await executor.begin(f"{server} 'call GET /key'")
    [answer] = await answers(executor)
    assert set(answer.removeprefix("200 ")) == {"*"}
    assert len(answer) > 32


@pytest.mark.parametrize("script", [
    "echo call GET /hello; sleep 600",
    "{server} 'call GET /hello' </dev/null & wait",
], ids=["no server", "a server of a tool"])  # fmt: skip
async def test_no_other_server_is_spoken_to(executor: Inside, server: str, script: str) -> None:
    await executor.begin(script.format(server=server))
    assert await answers(executor) == ["0 "]


async def test_an_answer_without_end_is_none(executor: Inside, server: str) -> None:
    await executor.begin(f"{server} 'call GET /much'")
    assert await answers(executor) == ["0 "]


async def test_an_answer_that_does_not_come_in_time_is_none(
    executor: Inside, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_calls, "CALL_SECONDS", 0.3)
    await executor.begin(f"{server} 'call GET /hang'")
    assert await answers(executor) == ["0 "]


async def test_calls_are_answered_beside_each_other(executor: Inside, server: str) -> None:
    await executor.begin(f"{server} 'call GET /hang' 'call GET /hello' 'call GET /missing'")
    assert sorted(await answers(executor, 2)) == ["200 hello", "404 hello"]


async def test_a_stop_does_not_wait_for_an_answer_and_leaves_no_server(executor: Inside, server: str) -> None:
    await executor.begin(f"{server} 'call GET /hang'")
    port = int(await executor.said("port"))
    pid = (await executor.show())["pid"]
    await executor.stop()
    ended = await executor.ended()
    assert (ended["outcome"], ended["errorCode"]) == ("canceled", "user_canceled")
    assert is_quiet(port)
    assert not is_running(pid)
    assert answers_in(await executor.events()) == []


async def test_an_answer_that_comes_while_the_attempt_is_ended_is_told_to_nobody(executor: Inside, server: str) -> None:
    await executor.begin(f"exec {server} 'call GET /late'", timeouts={"stopGraceMs": 1_000})
    await executor.said("port")
    await executor.stop()
    assert answers_in(await executor.events()) == []


async def test_an_engine_that_ends_answers_nothing_any_more(executor: Inside, server: str) -> None:
    await executor.begin(f"exec {server} 'call GET /exit'")
    ended = await executor.ended()
    assert ended["exitCode"] == 3
    assert answers_in(await executor.events()) == []


async def test_more_calls_than_anyone_needs_end_the_attempt(executor: Inside, server: str) -> None:
    lines = " ".join(["'call GET /hang'"] * (engine_calls.MAX_CALLS + 1))
    await executor.begin(f"{server} {lines}")
    ended: dict[str, Any] = await executor.ended()
    assert ended["errorCode"] == "internal"
    await until(lambda: not executor.app.runs.live())
