"""The body of the suite: what an engine is asked, what a person does meanwhile, what must come of it. The same for every engine.

``holds`` judges what was shown, so it judges recordings too; ``proves`` looks at the world and at what the model was told, and
only where a model was asked. ``script`` is the same request to the scripted engine, None where it has nothing of the kind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx

from tests.conformance.ground import OF_THE_SERVICE, Attempt
from tests.conformance.seen import Data, Seen

ANSWER = "Hello from the model stub. The answer is 42."
WORD = "kumquat"
STOP_SECONDS = 15.0
SCHEMA = {
    "type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False,
}  # fmt: skip
GIANT_BYTES = 9 * 1024 * 1024
# No event may be larger: what an engine printed is capped before the journal.
MAX_EVENT_BYTES = 9 * 1024 * 1024
FULL: Mapping[str, Any] = {"engineMode": "full"}

Steps = list[Data]
Proof = Callable[[Attempt], Awaitable[None]]


class Talk(Protocol):
    """An attempt as a person meets it: at the executor, or while it is recorded."""

    async def first(self, kind: str, number: int = 1) -> Data:
        """The data of the first (second, …) event of this kind, past or to come."""
        ...

    async def reply(self, question_id: str, **reply: Any) -> None: ...
    async def say(self, text: str) -> httpx.Response | None: ...
    async def stop(self) -> None: ...
    async def ended(self) -> Seen: ...


Person = Callable[[Talk], Awaitable[None]]
First = Literal["ended", "stopped", "killed"]
AFTER: Mapping[str, First] = {"success": "ended", "stop": "stopped", "kill -9": "killed"}


@dataclass(frozen=True)
class Case:
    """``needs``: the flags of Capabilities it is about. ``asks``: further fields of the start. ``ends``: success, canceled, or a
    failure's code. ``after``: how an earlier attempt of the same session ended. ``in_slice``: it runs without ALL=1, too."""

    name: str
    marker: str
    script: Steps | None
    ends: str = "success"
    needs: tuple[str, ...] = ()
    asks: Mapping[str, Any] = field(default_factory=dict[str, Any])
    person: Person | None = None
    holds: Callable[[Seen], None] | None = None
    proves: Proof | None = None
    after: First | None = None
    in_slice: bool = False


# ---- what a person does ----


def decides(decision: str, times: int = 1, **more: Any) -> Person:
    async def person(attempt: Talk) -> None:
        for number in range(1, times + 1):
            asked = await attempt.first("interaction.requested", number)
            assert asked["type"] == "permission"
            await attempt.reply(asked["questionId"], decision=decision, **more)

    return person


async def answers(attempt: Talk) -> None:
    asked = await attempt.first("interaction.requested")
    assert (asked["type"], asked["prompt"]) == ("question", "Tabs or spaces?")
    assert [option["label"] for option in asked["options"]] == ["Tabs", "Spaces"]
    await attempt.reply(asked["questionId"], answer="Spaces")


async def says_more(attempt: Talk) -> None:
    await attempt.first("message.delta")
    answer = await attempt.say("now say [[text]]")
    assert answer is None or answer.status_code == 200


def stops_at(kind: str | None) -> Person:
    """The stop is over within its bound, and asking again is taken calmly."""

    async def person(attempt: Talk) -> None:
        if kind is not None:
            await attempt.first(kind)
        began = time.monotonic()
        await attempt.stop()
        await attempt.stop()
        await attempt.ended()
        assert time.monotonic() - began < STOP_SECONDS
        await attempt.stop()

    return person


# ---- what must come of it ----


def answered(seen: Seen) -> None:
    """One message is the answer, and it is the result."""
    assert seen.finals == [seen.result]
    assert seen.result


def streamed(seen: Seen) -> None:
    answered(seen)
    deltas = seen.data("message.delta")
    assert len(deltas) > 1
    assert len({delta["messageId"] for delta in deltas}) == len(seen.data("message.completed"))
    assert seen.said("message.delta") == seen.said("message.completed")


def reasoned(seen: Seen) -> None:
    answered(seen)
    assert seen.said("reasoning.completed").strip()
    assert seen.said("reasoning.completed").strip() not in seen.result


def used(seen: Seen) -> None:
    assert seen.usage is not None
    assert seen.usage["inputTokens"] > 0
    assert seen.usage["outputTokens"] > 0
    assert seen.data("usage.updated")[-1]["usage"] == seen.usage


def with_tools(*statuses: str, questions: int | None = None) -> Callable[[Seen], None]:
    def holds(seen: Seen) -> None:
        assert [status for _, status in seen.tools] == list(statuses)
        begun = [data["toolId"] for data in seen.data("tool.started")]
        assert sorted(begun) == sorted(data["toolId"] for data in seen.data("tool.completed"))
        assert len(set(begun)) == len(begun)
        if questions is not None:
            asked = [data["questionId"] for data in seen.data("interaction.requested")]
            assert len(set(asked)) == len(asked) == questions

    return holds


def then(*all_of: Callable[[Seen], None]) -> Callable[[Seen], None]:
    def holds(seen: Seen) -> None:
        for each in all_of:
            each(seen)

    return holds


def asked_once(seen: Seen) -> None:
    assert [data["type"] for data in seen.data("interaction.requested")] == ["question"]
    answered(seen)


def planned(seen: Seen) -> None:
    assert seen.data("plan.updated")[-1]["items"] == [
        {"text": "look", "status": "in_progress"},
        {"text": "act", "status": "pending"},
    ]


def unanswered(seen: Seen) -> None:
    """A run that failed or was stopped has no answer."""
    assert seen.finals == []
    assert seen.result is None


def told_again_of_nothing(seen: Seen) -> None:
    """A resumed attempt shows only what is new."""
    answered(seen)
    assert WORD not in str(seen.events)
    assert len(seen.data("session.started")) == 1


def structured(seen: Seen) -> None:
    """JSON; an adapter may leave it in its text, which the executor reads."""
    assert isinstance(json.loads(seen.result) if isinstance(seen.result, str) else seen.result, dict)
    assert len(seen.finals) == 1


def bounded(seen: Seen) -> None:
    """The answer whole, or none; and no event larger than what is read of a line."""
    assert seen.outcome != "success" or len(seen.result) in (1, GIANT_BYTES)
    assert max(len(str(event)) for event in seen.events) < MAX_EVENT_BYTES


# ---- what the world and the model say ----


def made(content: bytes | None) -> Proof:
    async def proves(attempt: Attempt) -> None:
        assert await attempt.file("made.txt") == content

    return proves


async def heard_the_reason(attempt: Attempt) -> None:
    assert await attempt.file("made.txt") is None
    assert "use the other file" in attempt.ground.asked()


async def heard_the_answer(attempt: Attempt) -> None:
    assert "Spaces" in (await attempt.ended()).result


async def knew_the_word(attempt: Attempt) -> None:
    assert WORD in attempt.ground.asked()


async def fitted_the_schema(attempt: Attempt) -> None:
    assert (await attempt.ended()).result == {"answer": 42}


async def spoke_json(attempt: Attempt) -> None:
    assert (await attempt.ended()).result == '{"answer":42}'


async def found_no_secret(attempt: Attempt) -> None:
    """Of the command's environment the model was told everything; what the service knows was not in it."""
    told = attempt.ground.asked()
    assert f"RUNYARD_RUN={attempt.run_id}.1" in told
    assert not [name for name, secret in OF_THE_SERVICE.items() if secret in told]


def say(text: str) -> Data:
    return {"say": text}


def tool(status: str = "completed") -> Data:
    return {"tool": {"name": "shell", "input": {"command": "true"}, "output": "made", "status": status}}


PERMISSION: Data = {"permission": {"tool": "shell", "input": {"command": "true"}}}
SLOW: Data = {"ticks": {"count": 600, "everyMs": 100}}
MAKE = "printf made > made.txt; cat made.txt"
ONE_TOOL = then(with_tools("completed"), answered)

CASES: tuple[Case, ...] = (
    Case("plain", "hi [[text]]", [say(ANSWER)], holds=answered, in_slice=True),
    Case("deltas", "[[slow:6]]", [{"ticks": {"count": 6, "everyMs": 150}}], needs=("deltas",), holds=streamed),
    Case("reasoning", "[[reasoning]]", [{"think": "First I look."}, say("42")], needs=("reasoning",), holds=reasoned),
    Case("usage", "[[text]]", [{"usage": {"inputTokens": 1, "outputTokens": 1}}, say("x")], needs=("usage",), holds=used),
    Case("plan", "[[plan]]", [{"plan": [{"text": "look", "status": "in_progress"}, {"text": "act"}]}, say("x")],
         needs=("plan",), holds=planned),
    # ---- tools ----
    Case("tool", f"[[tool:{MAKE}]]", [tool(), say("x")], needs=("tools",), asks=FULL, holds=ONE_TOOL, proves=made(b"made")),
    Case("two tools", "[[twice:printf x >> made.txt; cat made.txt]]", [tool(), tool(), say("x")], needs=("tools",), asks=FULL,
         holds=then(with_tools("completed", "completed", questions=0), answered), proves=made(b"xx")),
    Case("the tool's environment", "[[tool:env]]", None, needs=("tools",), asks=FULL, holds=ONE_TOOL, proves=found_no_secret,
         in_slice=True),
    Case("nothing left", "[[tool:setsid sleep 600 >/dev/null 2>&1 & echo spawned]]",
         [{"spawn": ["sleep", "600"], "setsid": True}], needs=("tools",), asks=FULL, holds=answered),
    # ---- a person in the loop ----
    Case("approve", f"[[tool:{MAKE}]]", [PERMISSION, tool(), say("x")], needs=("permissions",), person=decides("accept"),
         holds=then(with_tools("completed", questions=1), answered), proves=made(b"made"), in_slice=True),
    Case("approve for session", "[[twice:printf x >> made.txt]]", [PERMISSION, tool(), tool(), say("x")],
         needs=("permissions",), person=decides("acceptForSession"),
         holds=then(with_tools("completed", "completed", questions=1), answered), proves=made(b"xx")),
    Case("deny with message", f"[[tool:{MAKE}]]", [PERMISSION, tool("declined"), say("x")], needs=("permissions",),
         person=decides("decline", message="use the other file"), in_slice=True,
         holds=then(with_tools("declined", questions=1), answered), proves=heard_the_reason),
    Case("deny and stop", f"[[tool:{MAKE}]]", [PERMISSION], ends="canceled", needs=("permissions",),
         person=decides("declineAndStop"), holds=unanswered, proves=made(None)),
    Case("question", "[[question]]", [{"ask": {"prompt": "Tabs or spaces?", "options": ["Tabs", "Spaces"]}}],
         needs=("questions",), person=answers, holds=asked_once, proves=heard_the_answer, in_slice=True),
    Case("message while running", "[[slow:12]]", [{"ticks": {"count": 12, "everyMs": 100}}, say("x")], needs=("messages",),
         person=says_more, holds=answered),
    # ---- stop, in every phase ----
    Case("stop at once", "[[slow:400]]", [SLOW], ends="canceled", person=stops_at(None), holds=unanswered),
    Case("interrupt", "[[slow:400]]", [SLOW], ends="canceled", needs=("deltas",), person=stops_at("message.delta"),
         holds=unanswered, in_slice=True),
    Case("stop in a tool", "[[tool:touch began; sleep 97]]", None, ends="canceled", needs=("tools",), asks=FULL,
         person=stops_at("tool.started"), holds=then(with_tools("canceled"), unanswered)),
    Case("stop at a permission", f"[[tool:{MAKE}]]", [PERMISSION], ends="canceled", needs=("permissions",),
         person=stops_at("interaction.requested"), holds=unanswered, proves=made(None)),
    Case("stop at a question", "[[question]]", [{"ask": {"prompt": "?"}}], ends="canceled", needs=("questions",),
         person=stops_at("interaction.requested"), holds=unanswered),
    Case("stop when it is over", "[[text]]", [say("x")], person=stops_at("message.completed"), holds=answered),
    # ---- a session goes on ----
    *(
        Case(f"resume after {name}", "[[text]]", [say("x")], needs=("resume",), after=after, holds=told_again_of_nothing,
             proves=knew_the_word, in_slice=after == "killed")
        for name, after in AFTER.items()
    ),
    # ---- the form of the answer ----
    Case("JSON answer", "[[json]]", [say('{"answer":42}')], holds=answered, proves=spoke_json),
    Case("output schema", "[[json]]", [say('{"answer":42}')], needs=("output_schema",), asks={"outputSchema": SCHEMA},
         holds=structured, proves=fitted_the_schema),
    Case("giant line", f"[[giant:{GIANT_BYTES}]]", [{"bigLine": GIANT_BYTES}, say("x")], ends="any", holds=bounded),
)  # fmt: skip
