"""Asking the person at the terminal what a run asks; someone else may answer first.

A line answers only a question that was put to the person before it was typed: permissions are never given unseen.
"""

from __future__ import annotations

import asyncio

from runyard.api import Event, Json, Runyard, RunyardApiError, RunyardUnreachableError
from runyard.cli.keyboard import Keyboard
from runyard.cli.replies import expects, parse_reply
from runyard.cli.show import Show, asks

LOOK_AGAIN_SECONDS = 0.5
SETTLED = frozenset({404, 409})  # what a reply is refused with when there is nothing left to answer


class Asker:
    """Puts the run's open questions to the person, one at a time. Hears of an event before it is shown."""

    def __init__(self, runyard: Runyard, run_id: str, show: Show, keyboard: Keyboard) -> None:
        self._runyard = runyard
        self._run_id = run_id
        self._show = show
        self._keyboard = keyboard
        self._open: dict[str, Json] = {}
        self._asked: str | None = None  # the question that what is typed now is for
        self._changed = asyncio.Event()

    def heard(self, event: Event) -> None:
        question_id = str(event.data.get("questionId"))
        if event.kind == "interaction.requested":
            self._open[question_id] = event.data
            if self._asked is None:
                self._put(question_id)
            self._changed.set()
        elif event.kind == "interaction.resolved" and question_id in self._open:
            self._close(question_id)
            self._changed.set()

    async def run(self) -> None:
        """Until stdin ends."""
        while True:
            self._changed.clear()
            question_id = await self._next()
            if question_id is None:
                await self._changed.wait()
            elif not await self._ask(question_id, self._open[question_id]):
                return

    async def _next(self) -> str | None:
        """The first open one that still waits: a replayed question may have been answered long ago, which the snapshot knows."""
        while self._open:
            try:
                run = await self._runyard.get(self._run_id)
            except (RunyardApiError, RunyardUnreachableError):  # how long to bear with it is for the stream to say
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            waiting = {str(each["questionId"]) for each in run.get("pendingQuestions", [])}
            return next((question_id for question_id in self._open if question_id in waiting), None)
        return None

    async def _ask(self, question_id: str, question: Json) -> bool:
        """Until it is closed. False when nobody can be asked any more."""
        if self._asked != question_id:  # it was shown while another one was asked
            self._put(question_id)
            self._show.note(f"Asked now: {asks(question)}")
        while question_id in self._open:
            typing = asyncio.ensure_future(self._keyboard.line())
            if not await self._typed_before_a_change(typing):
                if question_id in self._open:
                    self._show.note(f"Still asked: {asks(question)}")
            elif (line := typing.result()) is None:
                self._show.note("No more input here; answer with: runyard reply")
                return False
            else:
                await self._answer(question_id, question, line)
        return True

    async def _typed_before_a_change(self, typing: asyncio.Future[str | None]) -> bool:
        """Whether a line came (or the end of input) before the open questions changed; ends the typing otherwise."""
        changing = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({typing, changing}, return_when=asyncio.FIRST_COMPLETED)
            if not typing.done():
                self._changed.clear()
            return typing.done()
        finally:
            typing.cancel()
            changing.cancel()
            await asyncio.gather(typing, changing, return_exceptions=True)

    async def _answer(self, question_id: str, question: Json, line: str) -> None:
        reply = parse_reply(question, line)
        if reply is None:
            self._show.note(f"  That is no answer to it: {expects(question)}")
            return
        try:
            await self._runyard.reply(self._run_id, question_id, **reply)
        except RunyardUnreachableError as error:
            self._show.note(f"  {error}; type it again")
        except RunyardApiError as error:
            if error.status not in SETTLED:
                self._show.note(f"  {error}; {'type it again' if error.retryable else expects(question)}")
                return
            self._show.note(f"  {error}")
            self._close(question_id)
        else:
            self._close(question_id)

    def _put(self, question_id: str) -> None:
        """From here on what is typed is for this question; what was typed before it stood there is for none."""
        self._keyboard.forget()
        self._asked = question_id

    def _close(self, question_id: str) -> None:
        self._open.pop(question_id, None)
        if self._asked == question_id:
            self._asked = None
