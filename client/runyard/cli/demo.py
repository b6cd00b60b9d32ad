"""``runyard demo``: a whole stack, one run through it, everything stopped again. It needs no account and no network.

It succeeds only if each thing it shows truly happened; every wait is bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runyard.api import Event, Runyard, RunyardApiError, RunyardUnreachableError
from runyard.cli.show import Live, brief
from runyard.local_stack.death_signal import dies_with_parent
from runyard.local_stack.processes import state_of
from runyard.local_stack.ready_file import read_ready_file

START_SECONDS = 90.0
RUN_SECONDS = 60.0
STOP_SECONDS = 15.0
INTERRUPTED = 130
# The demo leaves nothing: neither in another one's database nor where somebody keeps workspaces.
_NOT_THE_DEMOS = frozenset({"DATABASE_URL", "DATABASE_URL_FILE", "EXECUTOR_WORKSPACE_ROOT", "EXECUTOR_SNAPSHOT_STORE"})
ANSWER = "blue"
WORDS = ["A run is a row ", "in Postgres ", "before anything ", "else happens."]
SCRIPT: list[dict[str, Any]] = [
    {"deltas": WORDS, "everyMs": 60},
    {"tool": {"name": "shell", "input": {"command": "echo hello"}, "output": "hello", "status": "completed"}},
    {"ask": {"prompt": "Which colour should the bikeshed have?", "options": ["red", ANSWER]}},
    {"say": "Everything above is stored, numbered and can be replayed."},
    {"usage": {"inputTokens": 42, "outputTokens": 7}},
]


class DemoError(Exception):
    """Something the demo shows did not happen."""


def play(state_dir: Path | None) -> int:
    """The exit status: 0 only if all of it happened and everything ended. What failed keeps its folder, to be looked at."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    folder = state_dir or _own_folder()
    status, last = 0, Text("Everything stopped. The demo worked.", "bold green")
    try:
        _play(folder, console)
    except KeyboardInterrupt:
        status, last = INTERRUPTED, Text("Interrupted. Everything stopped.", "bold")
    except (DemoError, RunyardApiError, RunyardUnreachableError, TimeoutError, OSError) as error:
        console.print(Text(f"The demo failed: {error or type(error).__name__}", "bold red"))
        console.print(Text(f"What the services said is in {folder / 'logs'}", "dim"))
        return 1
    if state_dir is None:
        shutil.rmtree(folder)
    console.print(last)
    return status


def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="runyard-demo-"))
    folder.chmod(0o711)  # the database's user, when we are root, passes through
    return folder


def _play(folder: Path, console: Console) -> None:
    ready_file = folder / "demo-ready.json"
    ready_file.unlink(missing_ok=True)
    console.print(Text("Starting Postgres, an executor, the executor manager and the control plane …", "bold"))
    command = [sys.executable, "-P", "-m", "runyard.cli.main", "up", "--state-dir", str(folder), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_THE_DEMOS}
    with subprocess.Popen(
        [*command, "--ready-file", str(ready_file)], stdout=subprocess.DEVNULL, start_new_session=True, env=environment,
        preexec_fn=dies_with_parent(signal.SIGTERM),
    ) as stack:  # fmt: skip
        try:
            ready = asyncio.run(_until_ready(stack, ready_file))
            console.print(_service_table(ready))
            asyncio.run(_run_through(ready, console))
        finally:
            stack.terminate()
            _await_end(stack)
    left = [each["name"] for each in ready["services"] if state_of(each["pid"]) not in (None, "Z")]
    _must(stack.returncode == 0, f"the stack ended with status {stack.returncode}")
    _must(not left, f"still running: {', '.join(left)}")


async def _until_ready(stack: subprocess.Popen[bytes], ready_file: Path) -> dict[str, Any]:
    async with asyncio.timeout(START_SECONDS):
        while (ready := read_ready_file(ready_file)) is None:
            _must(stack.poll() is None, "the stack did not start")
            await asyncio.sleep(0.05)
    return ready


def _await_end(stack: subprocess.Popen[bytes]) -> None:
    try:
        stack.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        stack.kill()
        raise DemoError(f"the stack did not stop within {STOP_SECONDS:.0f} s") from None


async def _run_through(ready: dict[str, Any], console: Console) -> None:
    async with asyncio.timeout(RUN_SECONDS), Runyard(ready["apiUrl"], ready["apiKey"]) as runyard:
        accepted = await runyard.start(json.dumps({"script": SCRIPT}), provider="scripted")
        run_id = str(accepted["runId"])
        console.print(Text(f"\n{run_id} is {accepted['status']}; following its events:", "bold"))
        seen = await _follow_and_answer(runyard, run_id)
        stored = (await runyard.events(run_id, limit=200))["items"]
    console.print(Text("\nThe same events, read back from the database:", "bold"))
    console.print(_event_table(stored, console.width))
    _check(seen, stored)


async def _follow_and_answer(runyard: Runyard, run_id: str) -> list[Event]:
    show, seen = Live(run_id), list[Event]()
    async with aclosing(runyard.stream(run_id)) as events:
        async for event in events:
            seen.append(event)
            show.event(event)
            if event.kind == "interaction.requested":
                show.note(f"  the demo answers: {ANSWER}")
                await runyard.reply(run_id, str(event.data["questionId"]), answer=ANSWER)
    return seen


def _check(seen: list[Event], stored: list[dict[str, Any]]) -> None:
    def some(kind: str, fits: Callable[[dict[str, Any]], bool] = lambda _data: True) -> bool:
        return any(event.kind == kind and fits(event.data) for event in seen)

    streamed = "".join(event.data["text"] for event in seen if event.kind == "message.delta")
    _must("".join(WORDS) in streamed, "the text did not stream")
    _must(some("tool.completed", lambda data: data.get("name") == "shell"), "no tool was called")
    _must(some("interaction.resolved", lambda data: data.get("how") == "answered"), "the answer was not taken")
    _must(some("message.completed", lambda data: data.get("text") == f"reply: {ANSWER}"), "the answer did not reach the engine")
    _must(bool(seen) and seen[-1].data.get("status") == "success", "the run did not succeed")
    _must([event.cursor for event in seen] == list(range(1, len(seen) + 1)), "an event is missing")
    _must(
        [(each["cursor"], each["kind"]) for each in stored] == [(event.cursor, event.kind) for event in seen],
        "not all was stored",
    )


def _must(truth: bool, otherwise: str) -> None:
    if not truth:
        raise DemoError(otherwise)


def _service_table(ready: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("service", "pid", "address"):
        table.add_column(name)
    for each in ready["services"]:
        address = "a private socket" if each["name"] == "postgres" else each["url"]
        table.add_row(each["name"], str(each["pid"]), address)
    return table


def _event_table(stored: list[dict[str, Any]], width: int) -> Table:
    kinds = max(len(each["kind"]) for each in stored)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cursor", justify="right")
    table.add_column("kind")
    table.add_column("data")
    for each in stored:
        table.add_row(str(each["cursor"]), each["kind"], Text(brief(each["data"], max(20, width - kinds - 12))))
    return table
