"""Has one whole conversation with a provider through a live Runyard and checks each step of it: a run that asks, the reply, a
follow-up in the same session, a run that resumes, and one that is stopped. Real engines get words, the scripted one scripts.

exit status:
  0   every step held
  1   a step did not; those that need it were not tried
  64  the arguments are wrong
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runyard.api import Event, Runyard, RunyardApiError, RunyardUnreachableError  # noqa: E402
from scripts.arguments import Parser, add_stack_arguments, addresses  # noqa: E402
from shared.contracts.providers import Provider  # noqa: E402

Json = dict[str, Any]
SOME_ANSWER = "blue"


@dataclass(frozen=True, slots=True)
class Line:
    """What a run is told, and a regular expression its words must match."""

    prompt: str
    expect: str = "."


def _script(*steps: Json) -> str:
    return json.dumps({"script": list(steps)})


REAL: Mapping[str, Line] = MappingProxyType(
    {
        "ask": Line("Remember the word marzipan. Then run exactly this shell command: touch remembered.txt  Then say: done."),
        "followUp": Line("Which word did I ask you to remember? Answer with that word only.", "(?i)marzipan"),
        "resume": Line("Say that word once more, and nothing else.", "(?i)marzipan"),
        "stop": Line("Count from 1 to 5000, one number a line, without any tool, and do not leave out any."),
    }
)
SCRIPTED: Mapping[str, Line] = MappingProxyType(
    {
        "ask": Line(_script({"ask": {"prompt": "Which colour?", "options": ["red", SOME_ANSWER]}}), f"reply: {SOME_ANSWER}"),
        "followUp": Line(_script({"say": "here again"}), "turns: 2"),
        "resume": Line(_script({"say": "and again"}), "turns: 3"),
        "stop": Line(_script({"say": "working"}, {"hang": True})),
    }
)
LINES: Mapping[str, Mapping[str, Line]] = MappingProxyType({Provider.SCRIPTED: SCRIPTED})


class BrokenStepError(Exception):
    """What a step found that should be otherwise."""


def demand(held: bool, otherwise: str) -> None:
    if not held:
        raise BrokenStepError(otherwise)


@dataclass(slots=True)
class Conversation:
    """The steps, in their order. Each returns a line on what it saw, and raises ``BrokenStepError`` for what is wrong."""

    runyard: Runyard
    request: Mapping[str, Any]
    lines: Mapping[str, Line]
    session: str = field(default_factory=lambda: f"conversation-{uuid4().hex[:12]}")
    runs: dict[str, str] = field(default_factory=dict[str, str])
    question: Json = field(default_factory=dict[str, Any])

    async def ask(self) -> str:
        run_id = await self._start("ask", sessionId=self.session)
        asked = await self._event(run_id, "interaction.requested")
        self.question = asked.data
        pending = [each["questionId"] for each in (await self.runyard.get(run_id))["pendingQuestions"]]
        inbox = [each["questionId"] for each in (await self.runyard.pending())["items"]]
        demand(asked.data["questionId"] in pending, "the snapshot does not show the question")
        demand(asked.data["questionId"] in inbox, "the inbox does not show the question")
        return f"it asks for a {asked.data['type']}"

    async def reply(self) -> str:
        """The question once, the same reply again, and whatever the engine still asks for afterwards."""
        run_id, reply = self.runs["ask"], self._answer(self.question)
        await self.runyard.reply(run_id, self.question["questionId"], **reply)
        again = await self.runyard.reply(run_id, self.question["questionId"], **reply)
        demand(again.get("duplicate") is True, "the same reply again was not recognised")
        return await self._succeeds("ask")

    async def follow_up(self) -> str:
        run_id = await self._start("followUp", sessionId=self.session)
        said = await self._succeeds("followUp")
        demand((await self.runyard.get(run_id))["sessionId"] == self.session, "the run is in another session")
        return said

    async def resume(self) -> str:
        await self._start("resume", resumeRunId=self.runs["followUp"])
        return await self._succeeds("resume")

    async def stop(self) -> str:
        run_id = await self._start("stop")
        await self._event(run_id, "message.delta", "message.completed", "reasoning.delta")
        await self.runyard.stop(run_id)
        status = await self._ended(run_id)
        demand(status == "canceled", f"the stopped run ended as {status}")
        again = await self.runyard.stop(run_id)
        demand(again["status"] == "canceled", "a second stop was not taken calmly")
        return "canceled"

    async def end(self) -> None:
        """Nothing of ours goes on."""
        for run_id in self.runs.values():
            try:
                await self.runyard.stop(run_id)
            except (RunyardApiError, RunyardUnreachableError):
                continue

    async def _start(self, name: str, **more: Any) -> str:
        accepted = await self.runyard.start(self.lines[name].prompt, **self.request, **more)
        self.runs[name] = str(accepted["runId"])
        return self.runs[name]

    async def _event(self, run_id: str, *kinds: str) -> Event:
        async with aclosing(self.runyard.stream(run_id)) as events:
            async for event in events:
                if event.kind in kinds:
                    return event
                demand(not event.is_terminal, f"it ended before {kinds[0]}: {event.data}")
        raise BrokenStepError(f"its stream ended before {kinds[0]}")

    async def _ended(self, run_id: str) -> str:
        """The terminal status; questions on the way are answered."""
        async with aclosing(self.runyard.stream(run_id)) as events:
            async for event in events:
                if event.is_terminal:
                    return str(event.data["status"])
                if event.kind == "interaction.requested" and event.data["questionId"] != self.question.get("questionId"):
                    await self.runyard.reply(run_id, event.data["questionId"], **self._answer(event.data))
        raise BrokenStepError("its stream ended without a terminal event")

    async def _succeeds(self, name: str) -> str:
        """Its words, shortened."""
        run_id = self.runs[name]
        status = await self._ended(run_id)
        run = await self.runyard.get(run_id)
        demand(status == "success", f"it ended as {status}: {run.get('errorCode')}, {run.get('errorMessage')}")
        words = await self._words(run_id)
        demand(
            re.search(self.lines[name].expect, words) is not None, f"{words[:200]!r} does not match {self.lines[name].expect!r}"
        )
        return " ".join(words.split())[-80:]

    async def _words(self, run_id: str) -> str:
        async with aclosing(self.runyard.stream(run_id)) as events:
            return "\n".join([event.data["text"] async for event in events if event.kind == "message.completed"])

    def _answer(self, question: Mapping[str, Any]) -> Json:
        """Yes to what needs a leave; to a question the last option."""
        if question["type"] != "question":
            return {"decision": "accept"}
        options = question.get("options") or [{"label": SOME_ANSWER}]
        return {"answer": options[-1]["label"]}


async def converse(talk: Conversation, seconds: float) -> list[Json]:
    """Every step with its verdict: pass, fail, or skipped because an earlier one failed. ``stop`` needs none of them."""
    steps: dict[str, Callable[[], Awaitable[str]]] = {
        "ask": talk.ask, "reply": talk.reply, "followUp": talk.follow_up, "resume": talk.resume, "stop": talk.stop,
    }  # fmt: skip
    found: list[Json] = []
    try:
        for name, step in steps.items():
            if name != "stop" and any(each["status"] != "pass" for each in found):
                found.append({"step": name, "status": "skipped", "detail": "an earlier step failed", "runId": None, "seconds": 0})
                continue
            began = time.monotonic()
            status, detail = await _tried(step, seconds)
            run_id = talk.runs.get("ask" if name == "reply" else name)
            took = round(time.monotonic() - began, 2)
            found.append({"step": name, "status": status, "detail": detail, "runId": run_id, "seconds": took})
    finally:
        await talk.end()
    return found


async def _tried(step: Callable[[], Awaitable[str]], seconds: float) -> tuple[str, str]:
    try:
        async with asyncio.timeout(seconds):
            return "pass", await step()
    except TimeoutError:
        return "fail", f"not within {seconds:g} s"
    except (BrokenStepError, RunyardApiError, RunyardUnreachableError) as error:
        return "fail", str(error)


def _lines(arguments: argparse.Namespace) -> Mapping[str, Line]:
    """The provider's own, and over them those of ``--lines``. Raises ``ValueError`` or ``OSError``."""
    known = LINES.get(arguments.provider, REAL)
    given: Json = json.loads(arguments.lines.read_text()) if arguments.lines else {}
    if unknown := set(given) - set(known):
        raise ValueError(f"--lines: there is no step {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        return {**known, **{name: Line(**line) for name, line in given.items()}}
    except TypeError:
        raise ValueError("--lines: give {step: {prompt, expect}}") from None


def _arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_stack_arguments(parser)
    parser.add_argument("--provider", default=Provider.CODEX_APP_SERVER.value, help="default: %(default)s")
    parser.add_argument("--model")
    parser.add_argument("--provider-options", default="{}", metavar="JSON")
    parser.add_argument(
        "--lines", type=Path, help="JSON {step: {prompt, expect}} over the built-in ones; steps: " + ", ".join(REAL)
    )
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for each step; default: %(default)s")
    parser.add_argument("--out", type=Path, help="also write the report here")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    arguments = parser.parse_args()
    arguments.at = addresses(arguments)
    if arguments.at.api_url is None:
        parser.error("no Runyard is up here, and neither --base-url nor RUNYARD_URL names one")
    try:
        arguments.lines = _lines(arguments)
        arguments.provider_options = json.loads(arguments.provider_options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return arguments


async def examine(arguments: argparse.Namespace) -> Json:
    request = {"provider": arguments.provider, "model": arguments.model, "engineMode": "ask"}
    request["providerOptions"] = arguments.provider_options or None
    async with Runyard(arguments.at.api_url, arguments.at.api_key) as runyard:
        talk = Conversation(runyard, request, arguments.lines)
        steps = await converse(talk, arguments.timeout)
    return {
        "generatedAt": datetime.now(UTC).isoformat().replace("+00:00", "Z"), "baseUrl": arguments.at.api_url,
        "provider": arguments.provider, "model": arguments.model, "sessionId": talk.session,
        "passed": all(each["status"] == "pass" for each in steps), "steps": steps,
    }  # fmt: skip


def main() -> int:
    arguments = _arguments()
    report = asyncio.run(examine(arguments))
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if arguments.json:
        print(text)
    else:
        for each in report["steps"]:
            print(f"{each['status']:<8} {each['step']:<9} {each['seconds']:>6} s  {each['runId'] or ''}  {each['detail']}")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
