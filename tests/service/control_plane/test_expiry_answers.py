"""``onExpiry: answer``: what a caller may declare, and how it is said when nobody answers in time."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from control_plane.interactions.expire import ExpireQuestions
from control_plane.storage.run_log import Write
from shared.contracts.interactions import Decision, InteractionStatus, OnExpiry, Reply
from shared.contracts.runs import RunStatus
from shared.errors import ErrorCode
from tests.service.control_plane.conftest import Replica, Stores, frame
from tests.service.control_plane.test_races import LOST, asked, events_of_kind, overdue, question, status_of

BLUE = {"on_expiry": OnExpiry.ANSWER, "expiry_answer": "blue"}
SHOP = {"appId": "shop", "name": "Shop", "visibilityRules": [{"scope": "all"}]}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


# ---- what is declared ----


@pytest.mark.parametrize(("options", "field"), [
    ({"onExpiry": "allow"}, "onExpiry"), ({"onExpiry": ["answer"]}, "onExpiry"), ({"onExpiry": {}}, "onExpiry"),
    ({"onExpiry": "answer"}, "expiryAnswer"),
    ({"expiryAnswer": "blue"}, "expiryAnswer"), ({"onExpiry": "deny", "expiryAnswer": "blue"}, "expiryAnswer"),
    ({"onExpiry": "answer", "expiryAnswer": " "}, "expiryAnswer"), ({"onExpiry": "answer", "expiryAnswer": None}, "expiryAnswer"),
    ({"onExpiry": "answer", "expiryAnswer": {"n": 1}}, "expiryAnswer"),
    ({"onExpiry": "answer", "expiryAnswer": "a\0"}, "expiryAnswer"),
    ({"onExpiry": "answer", "expiryAnswer": "x" * 4097}, "expiryAnswer"),
])  # fmt: skip
async def test_a_default_that_nobody_can_be_given_is_refused_by_name(
    replica: Replica, stores: Stores, options: dict[str, Any], field: str
) -> None:
    body = {"provider": "scripted", "prompt": "x", "providerOptions": options}
    answer = await replica.http.post("/api/runs/start", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"providerOptions.{field}")
    assert await stores.pool.fetchval("SELECT count(*) FROM agent_runs") == 0


async def declared(stores: Stores, run_id: str) -> tuple[str, str | None]:
    row = await stores.pool.fetchrow("SELECT on_expiry, expiry_answer FROM agent_runs WHERE id = $1", run_id)
    assert row is not None
    return row["on_expiry"], row["expiry_answer"]


@pytest.mark.parametrize(("own", "kept"), [
    ({}, ("answer", "as usual")),
    ({"expiryAnswer": "red"}, ("answer", "red")),
    ({"onExpiry": "fail"}, ("fail", None)),
])  # fmt: skip
async def test_a_request_says_otherwise_than_its_profile(
    replica: Replica, stores: Stores, own: dict[str, Any], kept: tuple[str, str | None]
) -> None:
    options = {"onExpiry": "answer", "expiryAnswer": "as usual"}
    app = {**SHOP, "runtimeDefaults": {"provider": "scripted", "providerOptions": options}}
    assert (await replica.http.post("/api/apps/register", json=app)).is_success
    assert await declared(stores, await replica.start(executionProfile="shop", providerOptions=own)) == kept


async def test_a_profile_that_answers_says_what(replica: Replica) -> None:
    app = {**SHOP, "runtimeDefaults": {"providerOptions": {"onExpiry": "answer"}}}
    answer = await replica.http.post("/api/apps/register", json=app)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "runtimeDefaults.providerOptions.expiryAnswer")


@pytest.mark.parametrize("run", [{"on_expiry": OnExpiry.ANSWER}, {"expiry_answer": "blue"}])
async def test_the_database_refuses_a_default_without_its_answer(stores: Stores, run: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="who_answers_says_what"):
        await stores.pool.execute(
            "INSERT INTO agent_runs (id, source, status, on_expiry, expiry_answer) VALUES ('r', 'chat', 'queued', $1, $2)",
            run.get("on_expiry", OnExpiry.FAIL).value, run.get("expiry_answer"),
        )  # fmt: skip


# ---- what is said ----


async def expire(stores: Stores) -> None:
    await overdue(stores)
    await ExpireQuestions(stores.interactions, stores.log)()


async def test_who_is_asked_sees_what_will_be_answered(stores: Stores) -> None:
    lease = await asked(stores, **BLUE)
    found = await stores.interactions.one(lease.run_id, "q1")
    [told] = await events_of_kind(stores, lease.run_id, "interaction.requested")
    assert found is not None
    assert (found.on_expiry, found.expiry_answer) == (OnExpiry.ANSWER, "blue")
    assert (told["onExpiry"], told["expiryAnswer"]) == ("answer", "blue")


async def test_an_expired_question_is_answered_and_its_resolution_says_by_whom_and_how(stores: Stores) -> None:
    lease = await asked(stores, **BLUE)
    await expire(stores)
    assert await question(stores, lease.run_id) is InteractionStatus.ANSWERED
    [answered] = await stores.interactions.answered(lease.run_id)
    assert (answered.reply, answered.answered_by) == (Reply(answer="blue"), "expiry")
    taken = json.dumps({"questionId": "q1", "how": "answered", "answer": {"answer": "blue"}})
    await stores.log.write([Write(lease.run_id, [frame(2, "interaction.resolved", taken)], lease.token)])
    [resolved] = await events_of_kind(stores, lease.run_id, "interaction.resolved")
    assert resolved == {"questionId": "q1", "how": "answered", "answer": {"answer": "blue"}, "answeredBy": "expiry"}
    assert await status_of(stores, lease.run_id) is RunStatus.RUNNING


async def test_a_parked_question_that_expires_wakes_its_run_with_the_answer(stores: Stores) -> None:
    lease = await asked(stores, **BLUE)
    await stores.log.write([Write(lease.run_id, [LOST], lease.token)])
    assert await stores.runs.claim(10, 60) == []
    await expire(stores)
    assert [each.run_id for each in await stores.runs.claim(10, 60)] == [lease.run_id]
    [answered] = await stores.interactions.answered(lease.run_id)
    assert answered.reply == Reply(answer="blue")


async def test_a_permission_is_declined_and_not_answered(stores: Stores) -> None:
    lease = await asked(stores, type="permission", on_expiry=OnExpiry.ANSWER, expiry_answer="accept")
    assert "expiryAnswer" not in (await events_of_kind(stores, lease.run_id, "interaction.requested"))[0]
    await expire(stores)
    [answered] = await stores.interactions.answered(lease.run_id)
    assert answered.reply.decision is Decision.DECLINE


async def test_an_answer_of_another_form_than_asked_for_ends_the_run_and_says_why(stores: Stores) -> None:
    lease = await asked(stores, **BLUE)
    form = json.dumps({"questionId": "q2", "type": "question", "prompt": "how many?", "schema": SCHEMA})
    await stores.log.write([Write(lease.run_id, [frame(2, "interaction.requested", form)], lease.token)])
    await expire(stores)
    assert await question(stores, lease.run_id, "q2") is InteractionStatus.EXPIRED
    [why] = await events_of_kind(stores, lease.run_id, "diagnostic")
    assert (why["code"], why["message"].split(":")[0]) == ("expiry_answer_unfit", "q2")
    assert await status_of(stores, lease.run_id) is RunStatus.STOPPING
    reason = await stores.pool.fetchval("SELECT stop_reason FROM agent_runs WHERE id = $1", lease.run_id)
    assert reason == ErrorCode.INTERACTION_EXPIRED
