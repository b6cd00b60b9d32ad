"""Further messages to codex where no recording went: before, between, after turns, refused, left behind; and its options."""

from __future__ import annotations

from typing import Any

import pytest

from executor.adapters import ADAPTERS
from executor.adapters.base import STDOUT, Conversation, StartRequest
from shared.contracts.events import AttemptOutcome
from shared.contracts.provider_runs import Message
from shared.contracts.providers import Provider
from shared.errors import ErrorCode, RunyardError
from tests.unit.adapters.codex_lines import (
    TURN,
    agent_message,
    conversation,
    emitted,
    feed,
    sent,
    turn_completed,
    working,
)

LATE = {"code": -32600, "message": "no active turn to steer"}


def with_options(**options: Any) -> Conversation:
    more = {"output_schema": options.pop("schema")} if "schema" in options else {}
    request = StartRequest(
        run_id="run_1", attempt=1, executable="/codex", home="/h", workspace="/w", messages=[Message(content="hi")],
        provider_options={"baseUrl": "http://127.0.0.1:1", **options}, credential_env={"OPENAI_API_KEY": "k"}, **more,
    )  # fmt: skip
    return ADAPTERS[Provider.CODEX_APP_SERVER].start(request)


def opened(codex: Conversation) -> list[Any]:
    """What it says to begin its turn."""
    codex.opened()
    return sent(feed(codex, {"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}))


def test_a_message_before_the_turn_is_steered_into_it() -> None:
    codex = conversation()
    codex.opened()
    assert codex.message("more") == []
    steps = feed(
        codex, {"id": 1, "result": {}}, {"id": 2, "result": {"thread": {"id": "th"}}}, {"id": 3, "result": {"turn": TURN}}
    )
    assert sent(steps)[-1]["method"] == "turn/steer"


def test_a_message_that_waited_for_the_end_of_a_turn_begins_the_next_one() -> None:
    """Two messages: the first is taken although its turn is over by then, the second came in between."""
    codex = working()
    [steer] = sent(codex.message("first"))
    feed(codex, agent_message("one"), turn_completed())
    assert codex.message("second") == []
    steps = feed(codex, {"id": steer["id"], "result": {"turnId": "tu"}})
    [begun] = sent(steps)
    assert (begun["method"], begun["params"]["input"][0]["text"]) == ("turn/start", "second")
    again = {"id": "tu2", "status": "inProgress"}
    feed(codex, {"id": begun["id"], "result": {"turn": again}}, agent_message("two"), turn_completed())
    assert codex.ended(0).result == "two"
    assert emitted(codex.end_of(STDOUT)) == []


def test_a_message_that_came_too_late_begins_a_turn_of_its_own() -> None:
    codex = working()
    [steer] = sent(codex.message("late"))
    feed(codex, agent_message("one"), turn_completed())
    [begun] = sent(feed(codex, {"id": steer["id"], "error": LATE}))
    assert begun["method"] == "turn/start"


def test_a_message_that_came_too_late_for_a_failed_turn_is_told_and_begins_none() -> None:
    codex = working()
    [steer] = sent(codex.message("late"))
    feed(codex, turn_completed("failed"))
    steps = feed(codex, {"id": steer["id"], "error": LATE})
    assert sent(steps) == []
    assert [data["code"] for _kind, data in emitted(steps)] == ["message_refused"]
    assert codex.ended(0).outcome is AttemptOutcome.ERROR


def test_what_codex_had_not_taken_when_it_ended_is_told() -> None:
    codex = conversation()
    codex.opened()
    codex.message("one")
    codex.message("two")
    [(kind, data)] = emitted(codex.end_of(STDOUT))
    assert (kind, data["code"]) == ("diagnostic", "message_undeliverable")
    assert data["message"].startswith("2 ")
    assert emitted(codex.end_of(STDOUT)) == []


def test_a_turn_of_its_own_that_was_never_accepted_is_no_success_of_the_one_before() -> None:
    codex = working()
    [steer] = sent(codex.message("late"))
    feed(codex, agent_message("one"), turn_completed())
    feed(codex, {"id": steer["id"], "error": LATE})
    [(_kind, told)] = emitted(codex.end_of(STDOUT))
    assert (told["code"], told["message"][0]) == ("message_undeliverable", "1")
    assert codex.ended(-9).outcome is AttemptOutcome.ERROR


def test_a_turn_of_its_own_that_is_refused_is_told_as_undelivered() -> None:
    codex = working()
    [steer] = sent(codex.message("late"))
    feed(codex, agent_message("one"), turn_completed())
    [begun] = sent(feed(codex, {"id": steer["id"], "error": LATE}))
    feed(codex, {"id": begun["id"], "error": {"code": -1, "message": "no"}})
    assert [data["code"] for _kind, data in emitted(codex.end_of(STDOUT))] == ["message_undeliverable"]
    assert codex.ended(0).outcome is AttemptOutcome.ERROR


def test_an_option_nobody_knows_is_told_and_known_ones_are_not() -> None:
    codex = with_options(reasoningEffort="low", timeoutMs=5, temprature=1)
    [(kind, data)] = emitted(codex.opened())
    assert (kind, data["code"]) == ("diagnostic", "option_ignored")
    assert "temprature" in data["message"]


def test_skills_travel_with_the_first_turn() -> None:
    begun = opened(with_options(skills=["review", "fix-it"]))[-1]
    assert begun["method"] == "turn/start"
    assert begun["params"]["input"] == [
        {"type": "text", "text": "hi"},
        {"type": "skill", "name": "review", "path": "/w/.agents/skills/review/SKILL.md"},
        {"type": "skill", "name": "fix-it", "path": "/w/.agents/skills/fix-it/SKILL.md"},
    ]


@pytest.mark.parametrize(
    "options", [{"skills": "review"}, {"skills": ["../x"]}, {"skills": ["a/b"]}, {"skills": [1]}, {"wireApi": "chat"}]
)
def test_an_option_that_cannot_be_is_refused_before_anything_runs(options: dict[str, Any]) -> None:
    with pytest.raises(RunyardError) as refused:
        with_options(**options)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
