"""Following a run at a terminal: its events are shown and its questions asked.

Ctrl-C detaches, a second one stops the run, a third one leaves it to end by itself.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from typing import Any

from runyard.api import Event, Runyard
from runyard.cli.asking import Asker
from runyard.cli.exits import OF_RUN, Exit
from runyard.cli.keyboard import Keyboard
from runyard.cli.show import Show

SECOND_INTERRUPT_SECONDS = 2.0
STOPPING_SECONDS = 30.0


async def follow(runyard: Runyard, run_id: str, show: Show, after: int = 0) -> Exit:
    """Until the run has ended (its status as an exit) or the person detaches. Asks only where there is a terminal to ask at."""
    asker = None
    if sys.stdin.isatty():
        asker = Asker(runyard, run_id, show, Keyboard(sys.stdin.fileno(), sys.stdin.encoding))
    reading = asyncio.ensure_future(_read(runyard, run_id, show, asker, after))
    asking = asyncio.ensure_future(asker.run()) if asker is not None else None
    tasks: list[asyncio.Future[Any]] = [reading, *([asking] if asking is not None else [])]
    try:
        with _interrupts() as interrupted:
            await _until_done_or(interrupted, reading, asking)
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
            if asker is not None:
                asker.heard(event)
            show.event(event)
            if event.is_terminal:
                return event
    # Nothing was left to tell after the cursor: the status is in the snapshot.
    run = await runyard.get(run_id)
    return Event(after, "run.status", run_id, 0, "", {"status": run["status"]}, "")


async def _until_done_or(
    interrupted: asyncio.Event, work: asyncio.Future[Any], asking: asyncio.Future[None] | None = None
) -> None:
    """Until the work is done or Ctrl-C is pressed. Raises what the asking failed with."""
    waiting = asyncio.ensure_future(interrupted.wait())
    pending: set[asyncio.Future[Any]] = {waiting, work, *([asking] if asking is not None else [])}
    try:
        while not work.done() and not waiting.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if asking in done:
                await asking
    finally:
        waiting.cancel()


async def _stops_it(
    runyard: Runyard, run_id: str, show: Show, interrupted: asyncio.Event, reading: asyncio.Future[Event]
) -> bool:
    """After a first Ctrl-C: False to detach; after a second one the run is stopped and its end awaited, or a third one."""
    interrupted.clear()
    show.note(f"\nThe run goes on. Follow it again: runyard attach {run_id}   (Ctrl-C again stops it)")
    try:
        await asyncio.wait_for(interrupted.wait(), SECOND_INTERRUPT_SECONDS)
    except TimeoutError:
        return reading.done()
    interrupted.clear()
    show.note("Stopping the run … (Ctrl-C again leaves)")
    stopping = asyncio.ensure_future(_stop(runyard, run_id, reading))
    try:
        await _until_done_or(interrupted, stopping)
        if stopping.done():
            stopping.result()
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
    if not reading.done():
        show.note(f"It has not ended yet and may go on; see: runyard attach {run_id}")
    return reading.done()


async def _stop(runyard: Runyard, run_id: str, reading: asyncio.Future[Event]) -> None:
    """Asks for the run's end, and waits for it as long as it commonly takes."""
    await runyard.stop(run_id)
    await asyncio.wait({reading}, timeout=STOPPING_SECONDS)


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
