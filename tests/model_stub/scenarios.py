"""What the model answers, whatever the dialect: chosen by ``[[name]]`` or ``[[name:argument]]`` in the last user message.

A request that carries a tool's output after that message is answered with what the tool said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MARKER = re.compile(r"\[\[([a-z0-9]+)(?::(.*?))?\]\]", re.DOTALL)
WORD_SECONDS = 0.01
SLOW_SECONDS = 0.25
SLOW_WORDS = 40
GIANT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Asked:
    """A request, as far as a scenario looks at it."""

    model: str
    user_text: str
    tool_output: str | None
    tools: tuple[str, ...] = ()
    calls: int = 0  # tool outputs since the last user message
    asked_before: bool = False  # the same message, in an earlier request


@dataclass(frozen=True)
class Say:
    words: tuple[str, ...]
    every_seconds: float = WORD_SECONDS
    thought: str | None = None


@dataclass(frozen=True)
class RunCommand:
    command: str


@dataclass(frozen=True)
class EditFile:
    path: str
    text: str


@dataclass(frozen=True)
class MakePlan:
    """The first step is in progress, the others are pending."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class AskUser:
    question: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class CallTool:
    """Any tool, by the name the engine itself gave it."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Refuse:
    """An HTTP error instead of an answer."""

    status: int
    code: str
    message: str
    retry_after: int | None = None


@dataclass(frozen=True)
class BreakOff:
    """The words, then the connection is cut in the middle of the answer."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class EndBadly(BreakOff):
    """The words, then the dialect's own word for an answer that failed or became too long; a cut where it has none here."""

    how: Literal["failed", "incomplete"]
    reason: str


@dataclass(frozen=True)
class SayNothing:
    """A whole answer without any content."""


Reply = Say | RunCommand | EditFile | MakePlan | AskUser | CallTool | Refuse | BreakOff | SayNothing


def words_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\S+\s*|\s+", text))


def _call(argument: str) -> CallTool:
    """``[[call:Name {…}]]``; a marker inside the arguments, for a helper of the engine, is written ``<<name:…>>``."""
    name, _, arguments = argument.replace("<<", "[[").replace(">>", "]]").partition(" ")
    return CallTool(name, json.loads(arguments or "{}"))


SCENARIOS: Mapping[str, Callable[[str], Reply]] = {
    "text": lambda _: Say(words_of("Hello from the model stub. The answer is 42.")),
    "spell": lambda text: Say(tuple(text)),
    "slow": lambda count: Say(tuple(f"word{i} " for i in range(int(count or SLOW_WORDS))), SLOW_SECONDS),
    "giant": lambda length: Say(("x" * int(length or GIANT_BYTES),)),
    "reasoning": lambda _: Say(words_of("After some thought: 42."), thought="First I look. Then I answer."),
    "tool": lambda command: RunCommand(command or "echo hello from the tool"),
    "twice": lambda command: RunCommand(command or "echo hello from the tool"),
    "edit": lambda path: EditFile(path or "stub.txt", "written by the model stub"),
    "plan": lambda _: MakePlan(("look", "act")),
    "question": lambda _: AskUser("Tabs or spaces?", ("Tabs", "Spaces")),
    "call": _call,
    "401": lambda _: Refuse(401, "invalid_api_key", "Invalid API key"),
    "403": lambda _: Refuse(403, "forbidden", "This key may not use this model"),
    "404": lambda _: Refuse(404, "model_not_found", "The model does not exist"),
    "429": lambda _: Refuse(429, "rate_limit_exceeded", "Rate limit reached", retry_after=1),
    "quota": lambda _: Refuse(429, "insufficient_quota", "You exceeded your current quota"),
    "500": lambda _: Refuse(500, "server_error", "The model is broken"),
    "429now": lambda _: Refuse(429, "rate_limit_exceeded", "Rate limit reached"),
    "529": lambda _: Refuse(529, "overloaded", "The model is overloaded"),
    "toolong": lambda _: Refuse(400, "context_length_exceeded", "prompt is too long: 250000 tokens > 200000 maximum"),
    "cut": lambda _: BreakOff(words_of("This answer will be cut")),
    "cutonce": lambda text: Say(words_of(text or "one two three four five six")),
    "failed": lambda _: EndBadly(words_of("This answer will fail"), "failed", "server_error"),
    "limit": lambda _: EndBadly(words_of("This answer is too long"), "incomplete", "max_output_tokens"),
    "empty": lambda _: SayNothing(),
    "json": lambda text: Say((text or '{"answer":42}',)),
}
# How often a scenario calls its tool before it tells what the tool said.
CALLS: Mapping[str, int] = {"twice": 2}
# The tool by which an engine takes an answer in a schema's form, where the model's own format is not used for it.
ANSWER_TOOL = "StructuredOutput"


def reply_to(asked: Asked) -> Reply:
    """Text without a marker we know is echoed."""
    found = MARKER.search(asked.user_text)
    name = found.group(1) if found is not None else ""
    if asked.tool_output is not None and asked.calls >= CALLS.get(name, 1):
        return Say(words_of(f"Done. The tool said {asked.tool_output.strip()}"))
    if found is None or name not in SCENARIOS:
        return Say(words_of(f"You said: {asked.user_text}"))
    reply = SCENARIOS[name](found.group(2) or "")
    if name == "cutonce" and not asked.asked_before and isinstance(reply, Say):
        return BreakOff(reply.words[: len(reply.words) // 2])
    if name == "json" and ANSWER_TOOL in asked.tools:
        return CallTool(ANSWER_TOOL, json.loads("".join(reply.words))) if isinstance(reply, Say) else reply
    return reply
