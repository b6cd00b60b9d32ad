"""Following a run at a terminal: its events are shown, its questions asked, Ctrl-C detaches and a second one stops it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from typing import Any

from runyard.api import Event, Json, Runyard, RunyardApiError, RunyardUnreachableError
from runyard.cli.exits import OF_RUN, Exit
from runyard.cli.replies import expects, parse_reply
from runyard.cli.show import Show

SECOND_INTERRUPT_SECONDS = 2.0
STOPPING_SECONDS = 30.0


async def follow(runyard: Runyard, run_id: str, show: Show, after: int = 0) -> Exit:
    """Until the run has ended (its status as an exit) or the person detaches. Asks only where there is a terminal to ask at."""
    asker = Asker(runyard, run_id, show) if sys.stdin is not None and sys.stdin.isatty() else None  # pyright: ignore[reportUnnecessaryComparison]  None when it is closed
    reading = asyncio.ensure_future(_read(runyard, run_id, show, asker, after))
    asking = asyncio.ensure_future(asker.run()) if asker is not None else None
    tasks: list[asyncio.Future[Any]] = [reading, *([asking] if asking is not None else [])]
    try:
        with _interrupts() as interrupted:
            await _until_ended_or(interrupted, reading, asking)
            if not reading.done() and not await _stops_it(runyard, run_id, show, interrupted, reading):
                return Exit.DETACHED
        return OF_RUN[str(reading.result().data["status"])]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(runyard: Runyard, run_id: str, show: Show, asker: Asker | None, after: int) -> Event:
    """Shows every event; gives the terminal one."""
    async with aclosing(runyard.stream(run_id, after)) as events:
        async for event in events:
            show.event(event)
            if asker is not None:
                asker.heard(event)
            if event.is_terminal:
                return event
    # Nothing was left to tell after the cursor: the status is in the snapshot.
    run = await runyard.get(run_id)
    return Event(after, "run.status", run_id, 0, "", {"status": run["status"]}, "")


async def _until_ended_or(
    interrupted: asyncio.Event, reading: asyncio.Future[Event], asking: asyncio.Future[None] | None
) -> None:
    """Until the run has ended or Ctrl-C is pressed. Raises what the asking failed with."""
    waiting = asyncio.ensure_future(interrupted.wait())
    pending: set[asyncio.Future[Any]] = {waiting, reading, *([asking] if asking is not None else [])}
    try:
        while not reading.done() and not waiting.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if asking in done:
                await asking
    finally:
        waiting.cancel()


async def _stops_it(
    runyard: Runyard, run_id: str, show: Show, interrupted: asyncio.Event, reading: asyncio.Future[Event]
) -> bool:
    """After a first Ctrl-C: False to detach; after a second one the run is stopped and its end awaited."""
    interrupted.clear()
    show.note(f"\nThe run goes on. Follow it again: runyard attach {run_id}   (Ctrl-C again stops it)")
    try:
        await asyncio.wait_for(interrupted.wait(), SECOND_INTERRUPT_SECONDS)
    except TimeoutError:
        return reading.done()
    show.note("Stopping the run …")
    await runyard.stop(run_id)
    done, _ = await asyncio.wait({reading}, timeout=STOPPING_SECONDS)
    if not done:
        show.note(f"It has not ended yet; see: runyard attach {run_id}")
    return bool(done)


@contextmanager
def _interrupts() -> Generator[asyncio.Event]:
    """An event that Ctrl-C sets, instead of ending us."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)


class Asker:
    """Puts the run's open questions to the person at the terminal, one at a time; someone else may answer first."""

    def __init__(self, runyard: Runyard, run_id: str, show: Show) -> None:
        self._runyard = runyard
        self._run_id = run_id
        self._show = show
        self._open: dict[str, Json] = {}
        self._changed = asyncio.Event()

    def heard(self, event: Event) -> None:
        question_id = str(event.data.get("questionId"))
        if event.kind == "interaction.requested":
            self._open[question_id] = event.data
        elif event.kind == "interaction.resolved":
            self._open.pop(question_id, None)
        else:
            return
        self._changed.set()

    async def run(self) -> None:
        """Until stdin ends."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for question_id in await self._still_pending():
                if question_id in self._open and not await self._ask(question_id, self._open[question_id]):
                    return

    async def _still_pending(self) -> list[str]:
        """A replayed question may have been answered long ago: the snapshot knows."""
        if not self._open:
            return []
        run = await self._runyard.get(self._run_id)
        return [str(each["questionId"]) for each in run.get("pendingQuestions", [])]

    async def _ask(self, question_id: str, question: Json) -> bool:
        """False when nobody can be asked any more."""
        while question_id in self._open:
            line = await self._line_or_change()
            if line is None:
                continue
            if line == "":
                self._show.note("No more input here; answer with: runyard reply")
                return False
            reply = parse_reply(question, line)
            if reply is None:
                self._show.note(f"  That is no answer to it: {expects(question)}")
            else:
                await self._send(question_id, reply)
        return True

    async def _send(self, question_id: str, reply: dict[str, str]) -> None:
        try:
            await self._runyard.reply(self._run_id, question_id, **reply)
        except RunyardUnreachableError as error:
            self._show.note(f"  {error}; type it again")
            return
        except RunyardApiError as error:
            self._show.note(f"  {error}")
        self._open.pop(question_id, None)

    async def _line_or_change(self) -> str | None:
        """A typed line ("" at the end of input), or None when the open questions changed first."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), readable.set)
        waits = [asyncio.ensure_future(readable.wait()), asyncio.ensure_future(self._changed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(sys.stdin.fileno())
            for wait in waits:
                wait.cancel()
        if readable.is_set():
            return sys.stdin.readline()
        self._changed.clear()
        return None
