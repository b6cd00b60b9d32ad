"""What an engine does not claim: asked for all the same, it is refused by name, or simply does not happen. Never ignored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from shared.contracts.providers import Capabilities, EngineMode
from tests.conformance.cases import SCHEMA
from tests.conformance.ground import Ground


@dataclass(frozen=True)
class Refusal:
    name: str
    is_able: Callable[[Capabilities], bool]
    holds: Callable[[Ground], Awaitable[None]]


def _is_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, "capability_unavailable"), answer.text


async def _schema(ground: Ground) -> None:
    _is_refused(await ground.ask("[[json]]", outputSchema=SCHEMA))


async def _resume(ground: Ground) -> None:
    _is_refused(await ground.ask("[[text]]", resumeSessionId="01a1fbd3-c728-4ff3-8c5b-aef2c48661ef"))


async def _human_loop(ground: Ground) -> None:
    _is_refused(await ground.ask("[[text]]", requireHumanLoop=True))


async def _messages(ground: Ground) -> None:
    attempt = await ground.start("[[slow:400]]")
    await attempt.first("message.delta")
    _is_refused(await attempt.say("and now?"))
    await attempt.stop()


async def _modes(ground: Ground) -> None:
    for mode in set(EngineMode) - set(ground.can.engine_modes):
        _is_refused(await ground.ask("[[text]]", engineMode=mode.value))


async def _question(ground: Ground) -> None:
    """Nobody can be asked through it, so its model has no tool to ask with: the run ends, and waits for nobody."""
    seen = await (await ground.start("[[question]]", engineMode="full")).ended()
    assert seen.data("interaction.requested") == []


UNABLE = (
    Refusal("an output schema", lambda can: can.output_schema, _schema),
    Refusal("a session to resume", lambda can: can.resume, _resume),
    Refusal("a person in the loop", lambda can: can.permissions or can.questions, _human_loop),
    Refusal("a message while it runs", lambda can: can.messages, _messages),
    Refusal("an engine mode", lambda can: set(can.engine_modes) == set(EngineMode), _modes),
    Refusal("a question", lambda can: can.questions, _question),
)
