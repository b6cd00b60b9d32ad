"""What the commands about runs do: one function each, over the API client."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from runyard.api import Json, RunyardApiError
from runyard.cli.exits import OF_RUN, Exit, complain
from runyard.cli.follow import follow
from runyard.cli.server import open_server
from runyard.cli.show import JsonLines, Live, Show, clean
from runyard.cli.tables import question_table, run_table

PAGE = 500
UNBOUNDED = 100_000  # columns: who reads a pipe has as many as it takes


async def start(url: str | None, key: str | None, prompt: str, request: Json, *, follows: bool, as_json: bool) -> Exit:
    async with open_server(url, key) as runyard:
        try:
            accepted = await runyard.start(prompt, **request)
        except asyncio.CancelledError:
            complain("interrupted before an answer came: the run may have been started; see: runyard runs")
            raise
        run_id = str(accepted["runId"])
        for warning in accepted.get("warnings", []):
            complain(clean(str(warning)))
        if follows:
            show = _show(run_id, as_json)
            show.remark(f"  started {run_id}")
            return await follow(runyard, run_id, show)
    print(json.dumps(accepted) if as_json else run_id)
    if not as_json:
        complain(f"started; follow it with: runyard attach {run_id}")
    return Exit.SUCCESS


async def attach_to(url: str | None, key: str | None, run_id: str, after: int, as_json: bool) -> Exit:
    async with open_server(url, key) as runyard:
        return await follow(runyard, run_id, _show(run_id, as_json), after)


async def show_runs(url: str | None, key: str | None, filters: Json, as_json: bool) -> None:
    async with open_server(url, key) as runyard:
        runs = (await runyard.list(**filters))["items"]
    _print_items(runs, run_table, as_json)


async def show_pending(url: str | None, key: str | None, as_json: bool) -> None:
    async with open_server(url, key) as runyard:
        page = await runyard.pending(limit=PAGE)
        questions = page["items"]
        while page["nextCursor"] is not None:
            page = await runyard.pending(cursor=page["nextCursor"], limit=PAGE)
            questions += page["items"]
    _print_items(questions, question_table, as_json)


async def print_log(url: str | None, key: str | None, run_id: str, which: tuple[str, int | None], as_json: bool) -> None:
    """Range after range of one attempt, until there is no more. ``which``: the stream and the attempt, None for the newest."""
    stream, attempt = which
    byte_from = 0
    async with open_server(url, key) as runyard:
        while True:
            found = await runyard.logs(run_id, stream, byte_from, attempt)
            if as_json:
                print(json.dumps(found))
            else:
                sys.stdout.buffer.write(base64.b64decode(found["base64"]))
            if found.get("goneBytes") and not as_json:
                print(f"the first {found['goneBytes']} bytes are no longer kept", file=sys.stderr)
            if found["byteTo"] <= byte_from or found["byteTo"] >= found["totalBytes"]:
                break
            byte_from, attempt = found["byteTo"], found["attempt"]
    sys.stdout.flush()


async def stop_run(url: str | None, key: str | None, run_id: str, as_json: bool) -> None:
    async with open_server(url, key) as runyard:
        answer = await runyard.stop(run_id)
    ended = answer["status"] in OF_RUN
    print(json.dumps(answer) if as_json else f"{run_id} {'has ended: ' if ended else 'is '}{answer['status']}")


async def send_reply(url: str | None, key: str | None, to: tuple[str, str | None], said: Json, as_json: bool) -> None:
    run_id, question_id = to
    async with open_server(url, key) as runyard:
        answer = await runyard.reply(run_id, question_id or _only_question(await runyard.get(run_id)), **said)
    print(json.dumps(answer) if as_json else f"{run_id} has the answer{' already' if answer.get('duplicate') else ''}")


def _only_question(run: Json) -> str:
    waiting = [str(each["questionId"]) for each in run.get("pendingQuestions", [])]
    if len(waiting) != 1:
        detail = f"{len(waiting)} questions wait in it; name one: {', '.join(waiting)}" if waiting else "no question waits in it"
        raise RunyardApiError(409, {"detail": f"{run['runId']}: {detail}"})
    return waiting[0]


def _show(run_id: str, as_json: bool) -> Show:
    return JsonLines() if as_json else Live(run_id)


def _print_items(items: list[Json], table: Callable[[list[Json], int | None], Table], as_json: bool) -> None:
    if as_json:
        for item in items:
            print(json.dumps(item))
        return
    width = Console().width if sys.stdout.isatty() else None
    Console(width=width or UNBOUNDED, soft_wrap=True, highlight=False).print(table(items, width))
