"""Messages to the real codex through all services, and what it left: steered once, and no file that shows its key."""

from __future__ import annotations

import io
import zipfile

import pytest

from tests.engines.test_codex_through_services import (
    ANSWER,
    KEY,
    Codex,
    codex,
    engine_stack,
    of_kind,
    texts,
)

pytestmark = pytest.mark.engine
FIXTURES = (codex, engine_stack)

STEAL = "tr '\\0' '\\n' < /proc/$PPID/environ | grep ^OPENAI_API_KEY > stolen.txt"


async def test_a_message_is_steered_into_the_running_turn(codex: Codex) -> None:
    run_id = await codex.start("[[slow:400]]")
    await codex.first(run_id, "message.delta")
    answer = await codex.stack.client.post(f"/api/runs/{run_id}/messages", json={"text": "stop that and say [[text]]"})
    assert answer.status_code == 202, answer.text
    shown, events = await codex.ended(run_id)
    assert (shown["status"], shown["result"]) == ("success", ANSWER)
    notes = [data["message"] for data in of_kind(events, "diagnostic") if data["code"] == "message_delivered"]
    assert notes == [answer.json()["messageId"]]


async def test_a_message_that_waits_with_a_question_is_heard_after_its_answer(codex: Codex) -> None:
    run_id = await codex.start("[[question]]")
    question = await codex.question(run_id)
    answer = await codex.stack.client.post(f"/api/runs/{run_id}/messages", json={"text": "[[spell:and more]]"})
    assert answer.status_code == 202, answer.text
    await codex.stack.reply(run_id, question["questionId"], answer="Spaces")
    shown, _events = await codex.ended(run_id)
    assert (shown["status"], shown["result"]) == ("success", "and more")


async def test_an_answer_that_misses_its_schema_ends_the_run_and_stands_in_it(codex: Codex) -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    shown, events = await codex.ended(await codex.start("[[json:no json]]", {"outputSchema": schema, "colour": 1}))
    assert (shown["status"], shown["errorCode"], shown["retryable"]) == ("error", "output_invalid", True)
    assert of_kind(events, "attempt.ended")[0]["result"] == "no json"
    assert texts(events, "message.completed") == ["no json"]
    assert [data["message"] for data in of_kind(events, "diagnostic") if data["code"] == "option_ignored"] == [
        "providerOptions.colour is not known to codex"
    ]


async def test_no_file_shows_the_key(codex: Codex) -> None:
    run_id = await codex.start(f"[[tool:{STEAL}]]", engineMode="full")
    await codex.ended(run_id)
    stars = f"OPENAI_API_KEY={'*' * len(KEY)}\n"
    assert (await codex.stack.client.get(f"/api/runs/{run_id}/files/stolen.txt")).text == stars
    bundle = await codex.stack.client.get(f"/api/runs/{run_id}/bundle")
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as archive:
        assert archive.read("stolen.txt").decode() == stars
