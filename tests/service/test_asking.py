"""Questions and Ctrl-C at a terminal, as the person before it meets them; against a fake control plane."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import until
from tests.service.command_line import BOUND_SECONDS, ended, start, told
from tests.service.fake_api import FakeApi, ending, event, serving

CHOICE = {"questionId": "q1", "type": "question", "prompt": "Which?", "options": [{"label": "red"}, {"label": "blue"}]}
FIRST = {"questionId": "q1", "type": "permission", "prompt": "May it look?"}
SECOND = {"questionId": "q2", "type": "permission", "prompt": "May it delete?"}
REPLY, SNAPSHOT, STOP = "/api/runs/run_1/human-loop/reply", "/api/runs/run_1", "/api/runs/run_1/stop"


@dataclass
class Terminal:
    keyboard: int
    descriptor: int  # what the command has as its stdin

    async def typed(self, keys: str) -> None:
        """Typed, and echoed: the terminal holds it, whether anybody reads it or not."""
        os.write(self.keyboard, keys.encode())
        shown, echo = "", keys.replace("\n", "\r\n").replace("\x04", "")
        async with asyncio.timeout(BOUND_SECONDS):
            while echo not in shown:
                with suppress(BlockingIOError):
                    shown += os.read(self.keyboard, 1024).decode()
                await asyncio.sleep(0.01)  # polling a condition with a bound


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    keyboard, descriptor = pty.openpty()
    os.set_blocking(keyboard, False)
    yield Terminal(keyboard, descriptor)
    os.close(keyboard)
    os.close(descriptor)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with serving(FakeApi()) as fake:
        yield fake


def asks(cursor: int, question: dict[str, Any]) -> dict[str, Any]:
    return event(cursor, "interaction.requested", **question)


def resolves(cursor: int, question: dict[str, Any], how: str = "answered") -> dict[str, Any]:
    return event(cursor, "interaction.resolved", questionId=question["questionId"], how=how)


def works(cursor: int, tool: str) -> dict[str, Any]:
    return event(cursor, "tool.started", toolId=tool, name=tool)


def replies(api: FakeApi) -> list[dict[str, Any]]:
    return [body for _, _, _, body in api.asked(REPLY)]


async def test_a_question_is_asked_at_the_terminal_and_its_answer_sent(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, CHOICE), resolves(2, CHOICE), ending(3, "success")]
    api.held_until_reply = 2
    api.pending = [CHOICE]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "2. blue")
    await terminal.typed("2\n")
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q1", "answer": "blue"}]


async def test_a_question_answered_long_ago_is_not_asked_again(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, CHOICE), resolves(2, CHOICE), ending(3, "success")]
    await terminal.typed("1\n")
    assert (await ended(await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor))).status == 0
    assert not replies(api)


async def test_what_was_typed_while_the_engine_worked_answers_no_question(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [works(1, "shell"), asks(2, FIRST), resolves(3, FIRST), ending(4, "success")]
    api.gates[2] = asyncio.Event()
    api.held_until_reply = 3
    api.pending = [FIRST]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "▸ shell")
    await terminal.typed("y\n")
    api.gates[2].set()
    await told(process, "runyard reply run_1 q1")
    await terminal.typed("n\n")
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q1", "decision": "decline"}]


async def test_a_line_typed_twice_answers_one_question_only(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, FIRST), resolves(2, FIRST), asks(3, SECOND), resolves(4, SECOND), ending(5, "success")]
    api.held_until_reply = 2
    api.gates[4] = asyncio.Event()
    api.pending = [FIRST, SECOND]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "runyard reply run_1 q1")
    await terminal.typed("y\ny\n")
    await told(process, "runyard reply run_1 q2")
    await terminal.typed("n\n")
    await until(lambda: len(replies(api)) == 2)
    api.gates[4].set()
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q1", "decision": "accept"}, {"questionId": "q2", "decision": "decline"}]


async def test_a_question_that_came_beside_another_has_its_turn(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, FIRST), asks(2, SECOND), resolves(3, FIRST, "expired"), resolves(4, SECOND), ending(5, "success")]
    api.gates = {2: asyncio.Event(), 3: asyncio.Event()}
    api.held_until_reply = 4
    api.pending = [FIRST]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "runyard reply run_1 q1")
    await until(lambda: len(api.asked(SNAPSHOT)) > 0)
    api.pending = [FIRST, SECOND]
    api.gates[2].set()
    await told(process, "runyard reply run_1 q2")
    await told(process, "Still asked: May it look?")
    api.gates[3].set()
    await told(process, "Asked now: May it delete?")
    await terminal.typed("n\n")
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q2", "decision": "decline"}]


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(503, "storage_unavailable", "type it again"), (422, "invalid_request", "your answer"), (500, "internal", "type it again")],
)
async def test_a_reply_that_was_refused_can_be_typed_again(
    api: FakeApi, home: Path, terminal: Terminal, status: int, code: str, said: str
) -> None:
    question = {"questionId": "q1", "type": "question", "prompt": "Which?"}
    api.events = [asks(1, question), resolves(2, question), ending(3, "success")]
    api.held_until_reply = 2
    api.pending = [question]
    api.refuse[REPLY], api.refusals = (status, {"code": code, "detail": "not now"}), 1
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "runyard reply run_1 q1")
    await terminal.typed("red\n")
    await told(process, f"not now; {said}")
    await terminal.typed("blue\n")
    assert (await ended(process)).status == 0
    assert [each["answer"] for each in replies(api)] == ["red", "blue"]


async def test_a_reply_that_lost_leaves_the_terminal_to_the_next_question(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, FIRST), asks(2, SECOND), resolves(3, SECOND), ending(4, "success")]
    api.held_until_reply = 3
    api.pending = [FIRST, SECOND]
    api.refuse[REPLY], api.refusals = (409, {"code": "conflict", "detail": "the question is answered already"}), 1
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "runyard reply run_1 q2")
    await terminal.typed("n\n")
    await told(process, "answered already")
    await told(process, "Asked now: May it delete?")
    await terminal.typed("n\n")
    assert (await ended(process)).status == 0
    assert [each["questionId"] for each in replies(api)] == ["q1", "q2"]


async def test_a_server_that_is_away_when_a_question_comes_does_not_end_the_following(
    api: FakeApi, home: Path, terminal: Terminal
) -> None:
    api.events = [asks(1, CHOICE), resolves(2, CHOICE), ending(3, "success")]
    api.held_until_reply = 2
    api.pending = [CHOICE]
    api.refuse[SNAPSHOT], api.refusals = (503, {"code": "storage_unavailable", "detail": "not now", "retryable": True}), 1
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "2. blue")
    await terminal.typed("2\n")
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q1", "answer": "blue"}]


async def test_half_a_line_sent_on_with_ctrl_d_holds_up_neither_events_nor_ctrl_c(
    api: FakeApi, home: Path, terminal: Terminal
) -> None:
    api.events = [asks(1, CHOICE), works(2, "shell"), resolves(3, CHOICE), ending(4, "success")]
    api.gates[2] = asyncio.Event()
    api.held_until_reply = 3
    api.pending = [CHOICE]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "2. blue")
    await until(lambda: len(api.asked(SNAPSHOT)) > 0)
    await terminal.typed("gr\x04")
    api.gates[2].set()
    await told(process, "▸ shell")
    await terminal.typed("een\n")
    assert (await ended(process)).status == 0
    assert replies(api) == [{"questionId": "q1", "answer": "green"}]


async def test_the_end_of_input_ends_the_asking_and_not_the_following(api: FakeApi, home: Path, terminal: Terminal) -> None:
    api.events = [asks(1, CHOICE), works(2, "shell"), ending(3, "success")]
    api.gates[2] = asyncio.Event()
    api.pending = [CHOICE]
    process = await start(api, "attach", "run_1", home=home, stdin=terminal.descriptor)
    await told(process, "2. blue")
    await terminal.typed("\x04")
    await told(process, "No more input here")
    api.gates[2].set()
    assert (await ended(process)).status == 0
    assert not replies(api)


async def test_a_third_interrupt_leaves_a_stop_that_nobody_confirms(api: FakeApi, home: Path) -> None:
    api.events = [works(1, "shell"), ending(2, "success")]
    api.gates[2] = asyncio.Event()
    api.silent = {STOP}
    process = await start(api, "attach", "run_1", home=home)
    await told(process, "▸ shell")
    process.send_signal(signal.SIGINT)
    await told(process, "The run goes on")
    process.send_signal(signal.SIGINT)
    await told(process, "Stopping the run")
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert (ran.status, "runyard attach run_1" in ran.stderr) == (130, True)


async def test_an_interrupt_while_the_start_is_on_its_way_says_what_is_not_known(api: FakeApi, home: Path) -> None:
    api.silent = {"/api/runs/start"}
    process = await start(api, "run", "hi", home=home)
    await until(lambda: bool(api.asked("/api/runs/start")))
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert (ran.status, "may have been started" in ran.stderr) == (130, True)


async def test_a_run_says_its_id_before_anything_else_happens(api: FakeApi, home: Path) -> None:
    api.events = [works(1, "shell"), ending(2, "success")]
    api.gates[1] = asyncio.Event()
    process = await start(api, "run", "hi", home=home)
    await told(process, "run_1")
    api.gates[1].set()
    assert (await ended(process)).status == 0
