"""Whether an answer has the form that was asked for. Engines trust their model: what is no JSON at all still ends in success.

A schema of a few kilobytes can take for ever to judge by, and nothing interrupts it: it is judged in a process of its own, which
may work for so long and no longer. The clock decides only where a judge does not come to its work: a machine that is busy with
others says nothing about an answer that was paid for. Nothing is judged on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from executor.adapters.base import Outcome
from executor.attempts.judge import MAX_CHARACTERS, MAX_CPU_SECONDS
from executor.engines.environment import engine_environment
from executor.processes.answering import Printed, answer_of
from executor.processes.engine_process import Launch
from executor.processes.process_tree import Forest
from executor.state_dir import MARK, RUN_MARK
from shared.contracts.events import AttemptOutcome
from shared.errors import ErrorCode, invalid
from shared.schemas import Schema

JUDGE_SECONDS = 15.0
MAX_VERDICT_BYTES = 6 * MAX_CHARACTERS + 2  # as JSON
NOT_JUDGED = "the answer was not held against its schema: the attempt had to end at once"
_JUDGE = (sys.executable, "-P", "-s", "-m", "executor.attempts.judge")
_OUR_PATH = os.pathsep.join(os.path.abspath(each) for each in sys.path if each)  # wherever we are imported from, it is too

# What an engine's own outcome is worth. The event: somebody is in a hurry, and waits for nothing more.
Fit = Callable[[Outcome, asyncio.Event], Awaitable[Outcome]]


async def as_it_is(outcome: Outcome, hurry: asyncio.Event) -> Outcome:
    return outcome


@dataclass(frozen=True, slots=True)
class Judging:
    """By processes of ``forest``, which carry the executor's ``mark``."""

    forest: Forest
    mark: str

    def fit_for(self, schema: Mapping[str, Any] | None, run_mark: str) -> Fit:
        """A success is one only if its JSON fits, else ``output_invalid`` with the answer as it came. Raises
        ``invalid_request`` for a schema that is none."""
        if schema is None:
            return as_it_is
        try:
            Schema(schema)
        except ValueError as error:
            raise invalid("outputSchema", str(error)) from error

        async def fit(outcome: Outcome, hurry: asyncio.Event) -> Outcome:
            if outcome.outcome is not AttemptOutcome.SUCCESS:
                return outcome
            try:
                value = msgspec.json.decode(outcome.result) if isinstance(outcome.result, str) else outcome.result
                question = msgspec.json.encode((schema, value))
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                return _invalid(outcome, f"the answer is not JSON: {error}")
            wrong = await self._wrong(question, f"judge.{run_mark}", hurry)
            return replace(outcome, result=value) if wrong is None else _invalid(outcome, wrong)

        return fit

    async def _wrong(self, question: bytes, run_mark: str, hurry: asyncio.Event) -> str | None:
        if hurry.is_set():
            return NOT_JUDGED
        ours = {MARK: self.mark, RUN_MARK: run_mark, "PYTHONPATH": _OUR_PATH}
        env = engine_environment(os.environ, {}, {}, {}, {}, ours)
        judge = Launch(_JUDGE, env, "/", makes_way=False)
        asking = asyncio.create_task(
            answer_of(self.forest, judge, run_mark, JUDGE_SECONDS, max_bytes=MAX_VERDICT_BYTES, stdin=question)
        )
        waiting = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait((asking, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
            waiting.cancel()
            await asyncio.wait((asking, waiting))  # the process is gone
        with suppress(asyncio.CancelledError):
            return _verdict(asking)
        return NOT_JUDGED


def _verdict(asked: asyncio.Task[Printed]) -> str | None:
    """What does not fit, or why nobody knows; None: all fits. Raises ``CancelledError`` of one that was not waited for."""
    try:
        printed = asked.result()
        if printed.exit_code == -signal.SIGXCPU:
            return f"the answer could not be held against its schema within {MAX_CPU_SECONDS} s of work"
        if printed.exit_code != 0:
            return f"the answer could not be held against its schema: its judge ended with status {printed.exit_code}"
        wrong = msgspec.json.decode(bytes(printed.output), type=str | None)
    except TimeoutError:
        return f"the answer could not be held against its schema within {JUDGE_SECONDS:g} s"
    except (OSError, RuntimeError, msgspec.DecodeError) as error:
        return f"the answer could not be held against its schema: {getattr(error, 'strerror', None) or error}"
    return None if wrong is None else f"the answer does not fit its schema: {wrong}"


def _invalid(outcome: Outcome, why: str) -> Outcome:
    return replace(outcome, outcome=AttemptOutcome.ERROR, error_code=ErrorCode.OUTPUT_INVALID, error_message=why)
